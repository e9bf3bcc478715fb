// Package pinned names the packages of Kubernetes whose tests are run, so that
// go.mod and go.sum hold what those tests need. Nothing imports it.
package pinned

import (
	_ "k8s.io/apiserver/pkg/storage/cacher"
	_ "k8s.io/apiserver/pkg/storage/etcd3"
	_ "k8s.io/apiserver/pkg/storage/storagebackend/factory"
)

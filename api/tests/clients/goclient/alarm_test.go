package goclient

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast.dev/clients/cluster"
)

var alarmCases = []testCase{
	{"an alarm about space refuses what needs some", caseNoSpace},
	{"an alarm about corruption refuses changes", caseCorrupt},
	{"alarms are raised, listed and cleared as named", caseAlarmActions},
	{"downgrades are validated", caseDowngrade},
}

func (e *env) alarm(action etcdserverpb.AlarmRequest_AlarmAction, kind etcdserverpb.AlarmType, member uint64) string {
	e.Helper()
	maintenance := etcdserverpb.NewMaintenanceClient(e.client.ActiveConnection())
	response, err := maintenance.Alarm(e.ctx, &etcdserverpb.AlarmRequest{Action: action, Alarm: kind, MemberID: member})
	e.must(err)
	var alarms []string
	for _, alarm := range response.Alarms {
		alarms = append(alarms, fmt.Sprintf("%d %v", alarm.MemberID, alarm.Alarm))
	}
	return strings.Join(alarms, ", ")
}

func (e *env) raise(kind etcdserverpb.AlarmType, member uint64) string {
	e.Helper()
	return e.alarm(etcdserverpb.AlarmRequest_ACTIVATE, kind, member)
}

func (e *env) clear(kind etcdserverpb.AlarmType, member uint64) string {
	e.Helper()
	return e.alarm(etcdserverpb.AlarmRequest_DEACTIVATE, kind, member)
}

func (e *env) list(kind etcdserverpb.AlarmType) string {
	e.Helper()
	return e.alarm(etcdserverpb.AlarmRequest_GET, kind, 0)
}

// catchUp waits until the first member has applied what every answer so far has seen: what it says
// of itself is not asked of the others.
func (e *env) catchUp() {
	e.Helper()
	_, err := e.connect(e.cluster.Endpoints()[0]).Get(e.ctx, e.key("k"))
	e.must(err)
}

// page is the answer of the first member over HTTP.
func (e *env) page(path string) string {
	e.Helper()
	e.catchUp()
	response, err := http.Get(e.cluster.Members[0].ClientURL() + path)
	e.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	e.must(err)
	return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body)))
}

func refused(e *env, what string, err, expected error) {
	e.Helper()
	equal(e, what, fmt.Sprint(err), expected.Error())
}

// changes makes one of each kind of request on every member.
func changes(e *env, client *clientv3.Client) map[string]error {
	key := e.key("k")
	_, put := client.Put(e.ctx, key, "v")
	_, del := client.Delete(e.ctx, key)
	_, putTxn := client.Txn(e.ctx).If(clientv3.Compare(clientv3.Version(key), "=", 77)).Then(clientv3.OpPut(key, "v")).Else(clientv3.OpGet(key)).Commit()
	nested := clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpPut(key, "v")})
	_, nestedTxn := client.Txn(e.ctx).Then(nested).Commit()
	_, delTxn := client.Txn(e.ctx).Then(clientv3.OpDelete(key)).Commit()
	_, getTxn := client.Txn(e.ctx).Then(clientv3.OpGet(key)).Commit()
	_, grant := client.Grant(e.ctx, 100)
	_, revoke := client.Revoke(e.ctx, 404)
	_, get := client.Get(e.ctx, key)
	_, serializable := client.Get(e.ctx, key, clientv3.WithSerializable())
	return map[string]error{"put": put, "delete": del, "put txn": putTxn, "nested put txn": nestedTxn, "delete txn": delTxn,
		"get txn": getTxn, "grant": grant, "revoke": revoke, "get": get, "serializable get": serializable}
}

func expectChanges(e *env, expected map[string]error) {
	e.Helper()
	e.each(func(_ string, client *clientv3.Client) {
		for what, err := range changes(e, client) {
			want := expected[what]
			if fmt.Sprint(err) != fmt.Sprint(want) {
				e.Fatalf("%s: %v instead of %v", what, err, want)
			}
		}
	})
}

// logged is how many entries the log has had.
func (e *env) logged() uint64 {
	e.Helper()
	e.catchUp()
	status, err := e.client.Status(e.ctx, e.cluster.Members[0].ClientURL())
	e.must(err)
	return status.RaftIndex
}

func caseNoSpace(e *env) {
	kind := etcdserverpb.AlarmType_NOSPACE
	revoke := rpctypes.ErrLeaseNotFound
	expectChanges(e, map[string]error{"revoke": revoke})
	equal(e, "raised", e.raise(kind, 77), "77 NOSPACE")
	none := rpctypes.ErrNoSpace
	expectChanges(e, map[string]error{"revoke": revoke, "put": none, "put txn": none, "nested put txn": none, "grant": none})
	compacted, err := e.client.Get(e.ctx, e.key("k"))
	e.must(err)
	_, err = e.client.Compact(e.ctx, compacted.Header.Revision)
	e.must(err)
	equal(e, "health", e.page("/health"), `503 {"health":"false","reason":"ALARM NOSPACE"}`)
	equal(e, "health", e.page("/health?serializable=true"), `503 {"health":"false","reason":"ALARM NOSPACE"}`)
	equal(e, "health", e.page("/health?exclude=NOSPACE"), `200 {"health":"true","reason":""}`)
	equal(e, "readyz", e.page("/readyz"), "200 ok")
	e.each(func(endpoint string, client *clientv3.Client) {
		status, err := client.Status(e.ctx, endpoint)
		e.must(err)
		equal(e, "errors", strings.Join(strings.Fields(strings.Join(status.Errors, ";")), " "), "memberID:77 alarm:NOSPACE")
	})
	response, err := e.client.AlarmDisarm(e.ctx, &clientv3.AlarmMember{})
	e.must(err)
	equal(e, "disarmed", len(response.Alarms), 1)
	equal(e, "listed", e.list(0), "")
	expectChanges(e, map[string]error{"revoke": revoke})
	equal(e, "health", e.page("/health"), `200 {"health":"true","reason":""}`)
}

func caseCorrupt(e *env) {
	equal(e, "raised", e.raise(etcdserverpb.AlarmType_NOSPACE, 5), "5 NOSPACE")
	equal(e, "raised", e.raise(etcdserverpb.AlarmType_CORRUPT, 0), "0 CORRUPT")
	corrupt := rpctypes.ErrCorrupt
	before := e.logged()
	expectChanges(e, map[string]error{"put": corrupt, "delete": corrupt, "put txn": corrupt, "nested put txn": corrupt,
		"delete txn": corrupt, "grant": corrupt, "revoke": corrupt})
	_, err := e.client.Compact(e.ctx, 1)
	refused(e, "compact", err, corrupt)
	if written := e.logged() - before; cluster.Target(e.T).Name != "etcd" && written > 2 {
		e.Fatalf("what is certain to be refused wrote %d entries of the log", written)
	}
	equal(e, "cleared", e.clear(etcdserverpb.AlarmType_NOSPACE, 5), "5 NOSPACE")
	equal(e, "health", e.page("/health"), `503 {"health":"false","reason":"ALARM CORRUPT"}`)
	equal(e, "health", e.page("/health?exclude=corrupt"), `503 {"health":"false","reason":"ALARM CORRUPT"}`)
	equal(e, "health", e.page("/health?exclude=CORRUPT"), `200 {"health":"true","reason":""}`)
	equal(e, "readyz", e.page("/readyz/data_corruption"), "503 [-]data_corruption failed: alarm activated: CORRUPT")
	equal(e, "cleared", e.clear(etcdserverpb.AlarmType_CORRUPT, 0), "0 CORRUPT")
	expectChanges(e, map[string]error{"revoke": rpctypes.ErrLeaseNotFound})
	equal(e, "readyz", e.page("/readyz/data_corruption"), "200 ok")
}

func caseAlarmActions(e *env) {
	none, noSpace, corrupt := etcdserverpb.AlarmType_NONE, etcdserverpb.AlarmType_NOSPACE, etcdserverpb.AlarmType_CORRUPT
	equal(e, "none is never raised", e.raise(none, 7), "")
	equal(e, "listed", e.list(none), "")
	equal(e, "raised", e.raise(noSpace, 7), "7 NOSPACE")
	equal(e, "raised again", e.raise(noSpace, 7), "7 NOSPACE")
	equal(e, "of one kind", e.list(corrupt), "")
	equal(e, "of one kind", e.list(noSpace), "7 NOSPACE")
	equal(e, "whose is not asked", e.alarm(etcdserverpb.AlarmRequest_GET, none, 3), "7 NOSPACE")
	equal(e, "another member's", e.clear(noSpace, 0), "")
	equal(e, "another kind", e.clear(none, 7), "")
	equal(e, "another kind", e.clear(corrupt, 7), "")
	equal(e, "cleared", e.clear(noSpace, 7), "7 NOSPACE")
	equal(e, "cleared again", e.clear(noSpace, 7), "")
	equal(e, "listed", e.list(none), "")
}

const (
	validate = clientv3.DowngradeAction(etcdserverpb.DowngradeRequest_VALIDATE)
	enable   = clientv3.DowngradeAction(etcdserverpb.DowngradeRequest_ENABLE)
	cancel   = clientv3.DowngradeAction(etcdserverpb.DowngradeRequest_CANCEL)
)

// versions are the cluster's and the one to go down to.
func (e *env) versions() (current, below string) {
	e.Helper()
	e.catchUp()
	status, err := e.client.Status(e.ctx, e.cluster.Endpoints()[0])
	e.must(err)
	var major, minor int
	_, err = fmt.Sscanf(status.Version, "%d.%d", &major, &minor)
	e.must(err)
	return fmt.Sprintf("%d.%d", major, minor), fmt.Sprintf("%d.%d.0", major, minor-1)
}

// downgrade is the version or the error that is answered.
func (e *env) downgrade(action clientv3.DowngradeAction, version string) string {
	response, err := e.client.Downgrade(e.ctx, action, version)
	if err != nil {
		return err.Error()
	}
	return response.Version
}

// noted waits until every member tells of a downgrade to a version, or of none.
func (e *env) noted(want string) {
	e.Helper()
	e.each(func(endpoint string, client *clientv3.Client) {
		e.eventually(fmt.Sprintf("a downgrade to %q", want), func() bool {
			status, err := client.Status(e.ctx, endpoint)
			return err == nil && status.DowngradeInfo.GetTargetVersion() == want && status.DowngradeInfo.GetEnabled() == (want != "")
		})
	})
}

func caseDowngrade(e *env) {
	current, below := e.versions()
	invalid, format := rpctypes.ErrInvalidDowngradeTargetVersion.Error(), rpctypes.ErrWrongDowngradeVersionFormat.Error()
	equal(e, "validate", e.downgrade(validate, below), current)
	equal(e, "validate", e.downgrade(validate, strings.TrimSuffix(below, ".0")), current)
	equal(e, "same", e.downgrade(validate, current), invalid)
	equal(e, "far", e.downgrade(enable, "2.9.0"), invalid)
	equal(e, "garbage", e.downgrade(validate, "v3"), format)
	equal(e, "nothing", e.downgrade(enable, ""), format)
	equal(e, "cancel", e.downgrade(cancel, ""), current)
}

// caseDowngradeIsKept is not for etcd, which would go down.
func caseDowngradeIsKept(e *env) {
	if cluster.Target(e.T).Name == "etcd" {
		return
	}
	current, below := e.versions()
	underWay := rpctypes.ErrDowngradeInProcess.Error()
	e.noted("")
	equal(e, "enable", e.downgrade(enable, below), current)
	e.noted(below)
	equal(e, "enable again", e.downgrade(enable, below), underWay)
	equal(e, "validate", e.downgrade(validate, below), underWay)
	for _, member := range e.cluster.Members {
		e.must(member.Kill())
	}
	for _, member := range e.cluster.Members {
		e.must(member.Spawn())
	}
	for _, member := range e.cluster.Members {
		e.must(member.WaitReady())
	}
	e.noted(below)
	e.eventually("write", func() bool { _, err := e.client.Put(e.ctx, e.key("k"), "v"); return err == nil })
	equal(e, "enable again", e.downgrade(enable, below), underWay)
	equal(e, "cancel", e.downgrade(cancel, ""), current)
	e.noted("")
	equal(e, "validate", e.downgrade(validate, below), current)
}

// isPassing tells of errors that a change of leaders explains.
func isPassing(err error) bool {
	code := status.Code(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		code = known.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// TestQuota fills a store up to its quota. etcd has to be defragmented and disarmed; holdfast has not.
func TestQuota(t *testing.T) {
	c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3, Args: []string{"--quota-backend-bytes=4194304"}})
	e := newEnv(t, c)
	value := strings.Repeat("0123456789abcdef", 4096)
	var err error
	written := 0
	for written < 200 && err == nil {
		_, err = e.client.Put(e.ctx, e.key(fmt.Sprint(written)), value)
		if isPassing(err) && e.ctx.Err() == nil {
			// It may have been made; the same key takes the same value again.
			err = nil
			continue
		}
		written++
	}
	refused(e, "put", err, rpctypes.ErrNoSpace)
	if written < 20 {
		e.Fatalf("only %d puts of 64 KiB went into 4 MiB", written)
	}
	_, err = e.client.Grant(e.ctx, 100)
	refused(e, "grant", err, rpctypes.ErrNoSpace)
	if alarms := e.list(0); !strings.Contains(alarms, "NOSPACE") {
		e.Fatalf("the alarms are %q", alarms)
	}
	get := e.get("0", clientv3.WithKeysOnly())
	equal(e, "reads go on", len(get.Kvs), 1)
	deleted, err := e.client.Delete(e.ctx, e.prefix, clientv3.WithPrefix())
	e.must(err)
	_, err = e.client.Compact(e.ctx, deleted.Header.Revision, clientv3.WithCompactPhysical())
	e.must(err)
	if cluster.Target(t).Name == "etcd" {
		e.each(func(endpoint string, client *clientv3.Client) {
			_, err := client.Defragment(e.ctx, endpoint)
			e.must(err)
		})
		_, err = e.client.AlarmDisarm(e.ctx, &clientv3.AlarmMember{})
		e.must(err)
	}
	// A busy machine may change leaders, of which a list of alarms tells rather than asking again.
	e.eventually("an alarm that has cleared itself", func() bool {
		response, err := e.client.AlarmList(e.ctx)
		return err == nil && len(response.Alarms) == 0
	})
	e.put("again", "v")
}

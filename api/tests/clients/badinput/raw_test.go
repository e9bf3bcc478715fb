package badinput

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"
)

// rawCall is a gRPC call made by hand, for what a proper client refuses to
// send. It returns the status that the server wrote.
type rawCall struct {
	name        string
	path        string
	contentType string
	header      map[string]string
	body        []byte
	// ownText is set where the message is the gRPC library's and no client reads
	// it: then only the codes are compared.
	ownText bool
}

// frame puts a message into a gRPC frame.
func frame(compressed byte, message []byte) []byte {
	head := []byte{compressed, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(head[1:], uint32(len(message)))
	return append(head, message...)
}

func mustMarshal(m proto.Message) []byte {
	encoded, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return encoded
}

var readOfA = frame(0, mustMarshal(&pb.RangeRequest{Key: keyA}))

var rawCalls = []rawCall{
	{name: "client-api-version that is not UTF-8", path: "/etcdserverpb.KV/Range",
		header: map[string]string{"client-api-version": "3.\xff\xfe"}, body: readOfA},
	{name: "truncated message", ownText: true, path: "/etcdserverpb.KV/Range", body: frame(0, []byte{0x0a, 0x7f, 'a'})},
	{name: "wrong wire type", ownText: true, path: "/etcdserverpb.KV/Range", body: frame(0, []byte{0x08, 0x01, 0x1f})},
	{name: "unknown field", path: "/etcdserverpb.KV/Range", body: frame(0, append(mustMarshal(&pb.RangeRequest{Key: keyA}), 0xf8, 0x3f, 0x01))},
	{name: "no content type suffix", path: "/etcdserverpb.KV/Range", contentType: "application/grpc", body: readOfA},
	{name: "proto content type", path: "/etcdserverpb.KV/Range", contentType: "application/grpc+proto", body: readOfA},
	{name: "compressed flag without an encoding", ownText: true, path: "/etcdserverpb.KV/Range", body: frame(1, mustMarshal(&pb.RangeRequest{Key: keyA}))},
	{name: "unknown method", ownText: true, path: "/etcdserverpb.KV/Nope", body: readOfA},
	{name: "unknown service", path: "/nobody.knows.v1.Service/Call", body: frame(0, nil)},
	{name: "malformed path", ownText: true, path: "/nonsense", body: readOfA},
}

func (r rawCall) do(ctx context.Context, endpoint string) (string, error) {
	transport := &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+endpoint+r.path, bytes.NewReader(r.body))
	if err != nil {
		return "", err
	}
	contentType := r.contentType
	if contentType == "" {
		contentType = "application/grpc"
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("TE", "trailers")
	for key, value := range r.header {
		request.Header[http.CanonicalHeaderKey(key)] = []string{value}
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	return r.describe(response, body), nil
}

// describe is what a gRPC client would see: HTTP status, gRPC status, message,
// and whether a response message came.
func (r rawCall) describe(response *http.Response, body []byte) string {
	status, message := response.Trailer.Get("grpc-status"), response.Trailer.Get("grpc-message")
	if status == "" {
		status, message = response.Header.Get("grpc-status"), response.Header.Get("grpc-message")
	}
	if decoded, err := url.PathUnescape(message); err == nil {
		message = decoded
	}
	if r.ownText {
		message = "(the library's)"
	}
	return fmt.Sprintf("http %d, grpc-status %s, message %q, answered %t", response.StatusCode, status, message, len(body) > 0)
}

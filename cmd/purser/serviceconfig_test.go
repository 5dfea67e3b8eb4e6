package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	published "github.com/purserhq/purser/proto/purser"
)

// serviceConfig is what is looked at of a gRPC service config.
type serviceConfig struct {
	LoadBalancingConfig []map[string]any
	MethodConfig        []methodConfig
}

type methodConfig struct {
	Name        []struct{ Service, Method string }
	Timeout     string
	RetryPolicy struct {
		MaxAttempts          int
		RetryableStatusCodes []string
	}
}

// of is the part that holds for a method: the most specific one.
func (c serviceConfig) of(service, method string) (methodConfig, bool) {
	for _, want := range []struct{ Service, Method string }{{service, method}, {service, ""}, {"", ""}} {
		for _, m := range c.MethodConfig {
			if slices.Contains(m.Name, want) {
				return m, true
			}
		}
	}
	return methodConfig{}, false
}

// Every method of every service has a deadline, and is tried again where it is UNAVAILABLE and nowhere else; but for streams,
// which go on for as long as their clients want, and are theirs to open again.
func TestServiceConfigCoversEveryMethod(t *testing.T) {
	conn, err := grpc.NewClient("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(published.ServiceConfig))
	if err != nil {
		t.Fatal(err) // grpc reads it more strictly than this test
	}
	conn.Close()
	var c serviceConfig
	if err := json.Unmarshal([]byte(published.ServiceConfig), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.LoadBalancingConfig) != 1 || c.LoadBalancingConfig[0]["round_robin"] == nil {
		t.Errorf("calls do not go round all replicas: %v", c.LoadBalancingConfig)
	}
	methods := map[string]bool{}
	for service, of := range servedMethods() {
		methods[string(service)] = true
		for _, m := range of {
			methods[string(service)+"/"+string(m.Name())] = true
			got, _ := c.of(string(service), string(m.Name()))
			timeout, err := time.ParseDuration(got.Timeout)
			switch {
			case m.IsStreamingServer():
				if got.Timeout != "" || got.RetryPolicy.MaxAttempts != 0 {
					t.Errorf("%s is a stream, and has the deadline %q and is tried again by %+v", m.FullName(), got.Timeout, got.RetryPolicy)
				}
			case err != nil || timeout <= 0 || timeout > time.Minute:
				t.Errorf("%s has the deadline %q", m.FullName(), got.Timeout)
			case got.RetryPolicy.MaxAttempts < 2 || !slices.Equal(got.RetryPolicy.RetryableStatusCodes, []string{"UNAVAILABLE"}):
				t.Errorf("%s is tried again by %+v", m.FullName(), got.RetryPolicy)
			}
		}
	}
	for _, m := range c.MethodConfig {
		for _, n := range m.Name {
			if name := strings.TrimSuffix(n.Service+"/"+n.Method, "/"); name != "" && !methods[name] {
				t.Errorf("the service config speaks of %s, which there is not", name)
			}
		}
	}
	if len(methods) < 20 {
		t.Errorf("only %d methods were looked at", len(methods))
	}
}

// servedMethods are those of all services of ours that this binary has.
func servedMethods() map[protoreflect.FullName][]protoreflect.MethodDescriptor {
	methods := map[protoreflect.FullName][]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(f.Package()), "purser.") {
			return true
		}
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				methods[s.FullName()] = append(methods[s.FullName()], s.Methods().Get(j))
			}
		}
		return true
	})
	return methods
}

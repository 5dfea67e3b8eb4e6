package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestWhatKubernetesInjectsSetsNothing(t *testing.T) {
	for name, value := range map[string]string{ // of Services named purser, purser-grpc and purser-http
		"PURSER_PORT": "tcp://10.0.0.1:80", "PURSER_GRPC_PORT": "udp://10.0.0.1:80", "PURSER_HTTP_PORT": "sctp://10.0.0.1:80",
		"PURSER_SERVICE_HOST": "10.0.0.1", "PURSER_SERVICE_PORT": "80", "PURSER_PORT_80_TCP": "tcp://10.0.0.1:80",
	} {
		for _, command := range []string{"eventstore", "write"} {
			t.Run(command+" "+name, func(t *testing.T) {
				t.Setenv(name, value)
				cmd, _, err := rootCommand().Find([]string{command})
				if err != nil {
					t.Fatal(err)
				}
				if err := fromEnvironment(cmd.Flags()); err != nil {
					t.Error(err)
				}
				var log bytes.Buffer
				warnUnknownEnvironment(cmd, slog.New(slog.NewTextHandler(&log, nil)))
				if strings.Count(log.String(), "name="+name+"\n") != 1 {
					t.Errorf("no warning of %s in %q", name, &log)
				}
			})
		}
	}
}

// One environment may serve every command, so only what none of them knows is worth a word.
func TestOnlyWhatNoCommandKnowsIsWarnedOf(t *testing.T) {
	t.Setenv("PURSER_EVENTSTORE_URL", "esdb://127.0.0.1:2113?tls=false")
	t.Setenv("PURSER_EVENTSTORE_ULR", "esdb://127.0.0.1:2113?tls=false")
	cmd, _, err := rootCommand().Find([]string{"projection", "list"}) // has no --eventstore-url
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	warnUnknownEnvironment(cmd, slog.New(slog.NewTextHandler(&log, nil)))
	if strings.Contains(log.String(), "PURSER_EVENTSTORE_URL") || !strings.Contains(log.String(), "name=PURSER_EVENTSTORE_ULR\n") {
		t.Errorf("the warnings are %q", &log)
	}
}

func TestEnvironmentSetsFlags(t *testing.T) {
	cmd, _, err := rootCommand().Find([]string{"eventstore"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PURSER_PORT", "2114")
	if err := fromEnvironment(cmd.Flags()); err != nil {
		t.Fatal(err)
	}
	if got := cmd.Flags().Lookup("port").Value.String(); got != "2114" {
		t.Errorf("--port is %s", got)
	}
	var log bytes.Buffer
	warnUnknownEnvironment(cmd, slog.New(slog.NewTextHandler(&log, nil)))
	if strings.Contains(log.String(), "PURSER_PORT") {
		t.Errorf("a warning of what is used: %s", &log)
	}

	cmd, _, err = rootCommand().Find([]string{"eventstore"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PURSER_PORT", "http://10.0.0.1:80")
	if err := fromEnvironment(cmd.Flags()); err == nil || !strings.Contains(err.Error(), "PURSER_PORT") {
		t.Errorf("a port that is none gives %v", err)
	}
}

package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

type composeService struct {
	Command     []string
	Ports       []string
	Environment map[string]string
	Secrets     []string
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck struct{ Test []string }
}

func composeServices(t *testing.T) map[string]composeService {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repositoryRoot(t), "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Services map[string]composeService }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

// docker-compose.yml publishes the documented ports on this machine only, and starts in the order of health.
func TestCompose(t *testing.T) {
	services := composeServices(t)
	for name, ports := range map[string][]string{
		"eventstore": {"2113"}, "postgres": {"5432"}, "write": {"50051", "8051"}, "query": {"50052", "8052"}, "inventory": {"50053", "8053"},
		"payment": {"50054", "8054"}, "saga": {"50055", "8055"}, "projector": {"50056", "8056"},
	} {
		s, ok := services[name]
		if !ok {
			t.Errorf("there is no %s", name)
			continue
		}
		var want []string
		for _, p := range ports {
			want = append(want, "127.0.0.1:"+p+":"+p)
		}
		if strings.Join(s.Ports, " ") != strings.Join(want, " ") {
			t.Errorf("%s publishes %v, want %v", name, s.Ports, want)
		}
		if len(s.Healthcheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
		for on, d := range s.DependsOn {
			if d.Condition != "service_healthy" {
				t.Errorf("%s waits for %s to be %q", name, on, d.Condition)
			}
		}
		if name != "eventstore" && name != "postgres" && (len(s.Command) != 1 || s.Command[0] != name || len(s.DependsOn) == 0) {
			t.Errorf("%s runs %v and waits for %v", name, s.Command, s.DependsOn)
		}
	}
}

// A service in a container is told all that its command takes, but for its ports, the level of its log and which read models it runs, and nothing
// else, which would be a warning at every start.
func TestComposeSetsTheFlagsOfEachService(t *testing.T) {
	for name, s := range composeServices(t) {
		if name == "eventstore" || name == "postgres" { // are not ours
			continue
		}
		cmd, _, err := rootCommand().Find(s.Command)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var want []string
		take := func(f *pflag.Flag) {
			if !slices.Contains([]string{"grpc-port", "http-port", "log-level", "models"}, f.Name) {
				want = append(want, envName(f.Name))
			}
		}
		cmd.LocalNonPersistentFlags().VisitAll(take)
		cmd.InheritedFlags().VisitAll(take)
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(s.Environment)); !slices.Equal(got, want) {
			t.Errorf("%s is told %v, and takes %v", name, got, want)
		}
		if got := s.Environment["PURSER_SECRET_FILE"]; (got == "/run/secrets/purser") != slices.Equal(s.Secrets, []string{"purser"}) {
			t.Errorf("%s reads %q and gets the secrets %v", name, got, s.Secrets)
		}
	}
}

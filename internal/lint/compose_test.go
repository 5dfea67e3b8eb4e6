package lint

import (
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// docker-compose.yml publishes the documented ports on this machine only, and starts in the order of health.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Command     []string
			Ports       []string
			DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
			Healthcheck struct{ Test []string }
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for name, ports := range map[string][]string{
		"eventstore": {"2113"}, "postgres": {"5432"}, "write": {"50051", "8051"}, "query": {"50052", "8052"}, "inventory": {"50053", "8053"},
		"payment": {"50054", "8054"}, "saga": {"50055", "8055"}, "projector": {"50056", "8056"},
	} {
		s, ok := file.Services[name]
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

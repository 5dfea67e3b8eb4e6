package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every command of the pages is run, in this order, and gives the answer that the page shows.
func TestReadme(t *testing.T) {
	i := newInstance(t)
	r := readmeRunner{t: t, root: repositoryRoot(t), offset: i.offset, grpcurl: goTool(t, "grpcurl"), varying: map[string]string{}}
	for _, page := range []struct {
		name    string
		atLeast int
	}{{"README.md", 10}, {"docs/clients.md", 5}} {
		if ran := r.runPage(page.name); ran < page.atLeast {
			t.Errorf("only %d commands found in %s", ran, page.name)
		}
	}
}

// runPage runs the commands of a page and returns how many there are.
func (r *readmeRunner) runPage(name string) int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.root, name))
	if err != nil {
		r.t.Fatal(err)
	}
	blocks := fencedBlocks(string(text))
	ran := 0
	for n, b := range blocks {
		if b.language != "sh" {
			continue
		}
		for _, command := range strings.Split(strings.TrimSpace(b.text), "\n") {
			var want string
			if n+1 < len(blocks) && blocks[n+1].language == "json" {
				want = blocks[n+1].text
			}
			r.run(command, want)
			ran++
		}
	}
	return ran
}

type fencedBlock struct{ language, text string }

func fencedBlocks(markdown string) []fencedBlock {
	var blocks []fencedBlock
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(markdown, -1) {
		blocks = append(blocks, fencedBlock{language: m[1], text: m[2]})
	}
	return blocks
}

// goTool returns the path of a tool of go.mod.
func goTool(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "-n", name).Output()
	if err != nil {
		t.Fatalf("go tool -n %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

type readmeRunner struct {
	t       *testing.T
	root    string
	offset  int
	dir     string // where purser is run
	grpcurl string
	// varying maps what the README shows for values that differ in each deployment to what they are here.
	varying map[string]string
}

func (r *readmeRunner) run(command, want string) {
	r.t.Helper()
	if targets, ok := strings.CutPrefix(command, "make "); ok {
		// Not run from within the tests that one of them runs; that they exist is what can go stale.
		cmd := exec.CommandContext(r.t.Context(), "make", append([]string{"-n"}, strings.Fields(targets)...)...)
		cmd.Dir = r.root
		if out, err := cmd.CombinedOutput(); err != nil {
			r.t.Errorf("%s: %v\n%s", command, err, out)
		}
		return
	}
	eventually(r.t, settle, func() error {
		out, err := r.shell(command)
		if err != nil && !strings.Contains(want, `"code":`) { // where an error is shown, it is compared as an answer is
			return fmt.Errorf("%s: %w\n%s", command, err, out)
		}
		if want == "" {
			return nil
		}
		return r.compare(command, out, want)
	})
}

var port = regexp.MustCompile(`127\.0\.0\.1:(\d+)`)

// shell runs a command as it stands on its page, against the instance under test.
func (r *readmeRunner) shell(command string) ([]byte, error) {
	for shown, here := range r.varying {
		command = strings.ReplaceAll(command, shown, here)
	}
	command = port.ReplaceAllStringFunc(command, func(addr string) string {
		p, _ := strconv.Atoi(port.FindStringSubmatch(addr)[1])
		return "127.0.0.1:" + strconv.Itoa(p+r.offset)
	})
	command = strings.Replace(command, "bin/grpcurl", r.grpcurl, 1)
	if args, ok := strings.CutPrefix(command, "bin/purser "); ok {
		cmd := purser(r.t.Context(), strings.Fields(args)...)
		store, _ := eventstorePorts.offset(r.offset).on(loopback)
		projector, _ := projectorPorts.offset(r.offset).on(loopback)
		cmd.Dir, cmd.Env = r.dir, append(cmd.Env, envPrefix+"EVENTSTORE_URL=esdb://"+store+"?tls=false", envPrefix+"PROJECTOR_ADDR="+projector)
		for name, p := range map[string]ports{"WRITE": writePorts, "INVENTORY": inventoryPorts, "QUERY": queryPorts} {
			addr, _ := p.offset(r.offset).on(loopback)
			cmd.Env = append(cmd.Env, envPrefix+name+"_URL="+addr)
		}
		return cmd.CombinedOutput()
	}
	cmd := exec.CommandContext(r.t.Context(), "sh", "-c", command)
	cmd.Dir = r.root
	return cmd.CombinedOutput()
}

func (r *readmeRunner) compare(command string, got []byte, want string) error {
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		return fmt.Errorf("%s: %w in\n%s", command, err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		r.t.Fatalf("the page's answer to %s: %v", command, err)
	}
	if !reflect.DeepEqual(r.normalize(g, w), w) {
		return fmt.Errorf("%s answers\n%s\nthe page says\n%s", command, got, want)
	}
	return nil
}

// differs are the fields whose values are new in each deployment.
var differs = map[string]bool{"consistencyToken": true, "orderNumber": true, "createTime": true, "updateTime": true}

// normalize puts the README's values in the place of those that differ in each deployment, and remembers them.
func (r *readmeRunner) normalize(got, want any) any {
	g, ok := got.(map[string]any)
	if !ok {
		return got
	}
	w, _ := want.(map[string]any)
	for k, v := range g {
		shown, ok := w[k].(string)
		if here, isString := v.(string); ok && isString && differs[k] {
			if k != "consistencyToken" { // that of the README is of a fresh store, and works as it stands on any
				r.varying[shown] = here
			}
			g[k] = shown
			continue
		}
		g[k] = r.normalize(v, w[k])
	}
	return g
}

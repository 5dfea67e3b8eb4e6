package eventlog

import "testing"

func TestTheActualRevisionIsFoundInTheClientsText(t *testing.T) {
	no := Revision(-2)
	for text, want := range map[string]Revision{
		"wrong expected version: expecting 'no_stream' but got '12'": 12,
		"wrong expected version: expecting '3' but got 'no_stream'":  NoStream,
		"wrong expected version: expecting '3' but got '-1'":         no,
		"wrong expected version: expecting '3' but got ''":           no,
		"wrong expected version: expecting '3' but got '4":           no,
		"wrong expected version, in other words":                     no,
		"":                                                           no,
	} {
		got := actualRevision(text)
		if (got == nil) != (want == no) || got != nil && *got != want {
			t.Errorf("%q: %v, want %d", text, got, want)
		}
	}
}

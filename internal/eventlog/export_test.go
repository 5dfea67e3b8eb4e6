package eventlog

import "time"

// SetSilence shortens how long a subscription may be silent.
func (l *Log) SetSilence(d time.Duration) { l.silence = d }

package eventlog

import "time"

// SetSilence shortens how long a subscription may be silent.
func (l *Log) SetSilence(d time.Duration) { l.silence = d }

// SetPatience shortens how long an attempt to read may take.
func (l *Log) SetPatience(d time.Duration) { l.patience = d }

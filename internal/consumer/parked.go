package consumer

import "fmt"

// Parked is a query for the keys of the live build whose rows are behind, as an event of theirs can't be applied. What
// acts on rows, or on what is derived from them, leaves these keys alone.
func (f *Fold[R]) Parked() string {
	return fmt.Sprintf("SELECT key FROM consumer.parked WHERE build = '%s'", buildName(f.Name, f.Version))
}

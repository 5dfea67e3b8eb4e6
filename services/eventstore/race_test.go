//go:build race

package eventstore_test

const raceDetector = true

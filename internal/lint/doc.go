// Package lint holds the tests that keep the project's own rules: who may import whom, that the checks of the protos can
// fail, and what docker-compose.yml promises.
package lint

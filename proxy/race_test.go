//go:build race

package proxy

// raceDetector says that everything takes longer.
const raceDetector = true

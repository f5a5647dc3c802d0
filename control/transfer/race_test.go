//go:build race

package transfer

const raceDetector = true

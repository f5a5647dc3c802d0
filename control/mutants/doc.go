// Command mutants plants one bug after the other into the TCP core and the transfer record, and requires that the tests
// find it. A bug that survives is a hole in the tests; a bug that cannot be planted any more is a row to bring up to date.
//
// Its central type is mutant: a name and some replacements of source text. The source is not touched: each bug is an overlay
// of the build (go build -overlay). Which tests caught it is printed.
//
//	mutants [-tests PACKAGES] [-run REGEX] [-args ARGUMENTS] [-only REGEX] [-min N]
//
// With -tests ./control/sim -run TestSchedules it shows which bugs the simulation finds without the unit tests' help; -min
// is how many have to be found then. Called by make mutants.
package main

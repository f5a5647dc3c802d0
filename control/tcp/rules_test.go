package tcp

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rules are what the RFCs ask of a server-side TCP, and the tests that show it. Every test runs with sequence numbers close
// to both wraps (eachBase), and all of them again with a transfer after every event (go test -migrate). Tests of other
// directories have their name before a colon.
var rules = []struct{ source, rule, tests string }{
	{"RFC 9293 §3.10.7.1", "CLOSED answers all but a RST with an exact RST", "TestClosedAnswersWithAnExactRST"},
	{"RFC 9293 §3.10.7.2", "LISTEN: RST, ACK, SYN, other, for all flags", "TestListenAnswersEachCombinationOfFlags"},
	{"RFC 9293 §3.10.7.4, 1st", "acceptability, four cases, to the octet",
		"TestAcceptability TestOutOfWindowSegmentIsAcknowledgedAndNotDelivered TestWindowIsRespectedToTheOctet"},
	{"RFC 9293 §3.10.7.4, 5th", "ACK of the unsent or too old", "TestACKField TestSynReceivedRefuses"},
	{"RFC 9293 §3.10.7.4, 5th", "no ACK flag", "TestSegmentWithoutACKIsDropped"},
	{"RFC 9293 §3.10.7.4, 5th", "window update by WL1 and WL2",
		"TestOldSegmentDoesNotChangeTheWindow TestWindowOfARetransmissionThatAdvancesCounts"},
	{"RFC 9293 §3.10.7.4, 7th", "overlap and duplicates, delivered once",
		"TestOverlappingDataIsDeliveredExactlyOnce TestTooManyGapsAreNotKept"},
	{"RFC 9293 §3.10.7.4, 8th", "FIN early, with data, alone, again; data after it",
		"TestEarlyFINWaitsForTheData TestFINAlone TestDataAfterFINIsIgnored TestFINInTheLastOctetOfTheWindow"},
	{"RFC 9293 §3.4", "32 bits wrap", "TestStreamsSurviveABadLinkAndMoves"},
	{"RFC 9293 §3.7.1, RFC 6691", "MSS, its defaults, options paid for",
		"TestSegmentsFitTheMSS TestMSSDefaultOfIPv6 TestDataSegmentsPayForSACKBlocks"},
	{"RFC 9293 §3.8.6.1", "zero window: probes, and answers to probes",
		"TestZeroWindowIsProbedUntilItOpens TestLostProbeDoesNotEndTheConnection TestZeroWindowAnswersProbesAndTakesACKs " +
			"TestFINOnlyIsProbedToo TestUnansweredProbesEndTheConnection"},
	{"RFC 9293 §3.8.6.2", "silly windows, both sides",
		"TestClientsWindowIsRespected TestSmallWindowIsUsedAfterATimeout TestEdgeMovesWithReceive TestWindowReopensWithAnACK"},
	{"RFC 9293 §3.7.4", "Nagle, and none", "TestNagle"},
	{"RFC 9293 §3.8.6.3, RFC 5681 §4.2", "delayed ACK; at once for a gap, its end, FIN, every second segment",
		"TestDelayedACKGoesOutByItself TestAutoACK TestDuplicateAndEarlySegmentsAreAcknowledgedAtOnce"},
	{"RFC 9293 §3.8.6", "the right edge never goes back",
		"TestEdgeOnTheWireNeverGoesBack TestEdgeStaysWithinWWhateverWasAnnounced TestStreamsSurviveABadLinkAndMoves"},
	{"RFC 9293 §3.6", "half-close, both ways", "TestHalfClosedClientGetsItsResponse TestCloseWriteGoesOnReading"},
	{"RFC 9293 §3.6", "simultaneous close; our close; FIN and ACK at once",
		"TestSimultaneousClose TestOurCloseEndsInTimeWait TestFINThatAcknowledgesOursEndsInTimeWait"},
	{"RFC 9293 §3.6.1, RFC 2525 §2.17", "close with unread data resets; linger does not",
		"TestCloseWithUnreadDataResets TestLingeringCloseTakesWhatTheClientStillSends"},
	{"RFC 9293 §3.10.7.4, RFC 6191", "TIME-WAIT: FIN again, a new SYN, its end",
		"TestOurCloseEndsInTimeWait TestSYNReopensTimeWait"},
	{"RFC 9293 §3.8.3", "SYN-RECEIVED: the same SYN-ACK again, and giving up",
		"TestSYNACKIsRepeatedAndGivenUp TestRepeatedSYNGetsTheSameSYNACK"},
	{"RFC 9293 §3.10.7.4", "data on the third ACK; the third ACK lost", "TestDataOnTheThirdACKIsTaken TestACKOfTheSYNOpens"},
	{"RFC 9293 §3.10.7.2, RFC 7413", "data on a SYN is not acknowledged; fast open is declined",
		"TestListenAnswersEachCombinationOfFlags fastpath:TestSYNDataIsNeverAcknowledged"},
	{"RFC 9293 §3.8.5", "urgent data is read in line", "TestUrgentDataIsReadInLine"},
	{"RFC 9293 §3.1", "reserved bits, checksums, option lengths",
		"fastpath/wire:TestParseTCPIgnoresLinkPaddingAndReservedBits fastpath/wire:TestParseTCPRefusesBadFrames " +
			"fastpath/wire:TestOptionsWithBadLengths fastpath/wire:FuzzParseTCP FuzzSegments"},
	{"RFC 9293 §3.8.3", "R2 and the user timeout", "TestRetransmissionInstants TestUserTimeout"},
	{"RFC 9293 §3.8.4", "keepalive: answered; ours off, then exact", "TestKeepaliveProbeIsAnswered TestKeepalive"},
	{"RFC 9293 §3.10.5", "abort", "TestAbortSendsOneExactRST TestCloseAndAbortInSynReceived"},
	{"RFC 7323 §2", "scaling: both or none, never in a SYN, at most 14",
		"TestSYNACKHasWhatTheSYNHad TestScaleIsAtMost14 TestWindowsWithoutScaling"},
	{"RFC 7323 §3.2, §4.3", "timestamps in all or none; TSecr under delay and loss",
		"TestSYNACKHasWhatTheSYNHad TestTSecrFollowsTheLastACKSent TestSegmentWithoutTimestampIsDropped"},
	{"RFC 7323 §5", "PAWS; RST exempt; 24 days", "TestPAWS"},
	{"RFC 7323 §5", "TSval never goes back, across transfers too",
		"TestTSvalNeverGoesBackWhenTheClockDoes TestTSvalIsNotBehindTheSYNACK TestStreamsSurviveABadLinkAndMoves"},
	{"RFC 7323 §4.1", "round trips only from ACKs that advance", "TestRoundTripsOnlyFromACKsThatAdvance"},
	{"RFC 5961 §3", "RST: exact, challenged, ignored", "TestResetOnlyAtExactlyTheNextSequenceNumber"},
	{"RFC 5961 §4", "SYN is challenged", "TestSYNIsChallenged"},
	{"RFC 5961 §5", "range of acceptable ACKs", "TestACKField"},
	{"RFC 5961 §7", "challenges are limited", "TestChallengeACKsAreLimited"},
	{"RFC 6298 §2", "RTO from measurements", "TestRTOFromMeasurements"},
	{"RFC 6298 §3", "Karn", "TestRetransmittedSegmentIsNotTimed"},
	{"RFC 6298 §5", "the timer's instants, backoff, stop, transfer",
		"TestRetransmissionInstants TestRetransmissionTimerFollowsTheACKs TestBackoffEndsAtTheMaximum TestTimersHaveLeftWhatTheyHad"},
	{"RFC 6298 §5.7", "3 s after a lost SYN", "TestRTOAfterALostSYNACK"},
	{"RFC 2018 §3, §4", "blocks newest first, 3 or 4", "TestSACKBlocksNewestFirst TestSACKBlocksEndWithTheGaps"},
	{"RFC 2883 §4", "D-SACK", "TestDuplicateIsTold TestUselessSACKsAreIgnored"},
	{"RFC 2018 §8", "reneging", "TestTimeoutForgetsTheSACKs"},
	{"RFC 6675", "holes once, nothing held, pipe within cwnd",
		"TestSACKRecoverySendsTheHolesOnce TestHoleIsLostByOctets TestPipeKeepsToTheWindow TestScoreboardUnitesAndIsBounded " +
			"TestPartialACKWithoutSACKRepeatsTheHole TestStreamsSurviveABadLinkAndMoves"},
	{"RFC 5681, RFC 6928", "IW10, slow start, congestion avoidance, loss window",
		"TestSlowStart TestCongestionAvoidance TestTimeoutGoesBackAndSlowStarts"},
	{"RFC 5681 §4.1", "restart after idle", "TestRestartAfterIdle"},
	{"RFC 3042", "limited transmit", "TestLimitedTransmit"},
	{"RFC 6582", "fast retransmit, partial ACKs", "TestFastRetransmitAndPartialACK"},
	{"RFC 6528, RFC 4987", "initial sequence numbers and cookies",
		"fastpath:TestCookiesOfTuplesAreUnrelated fastpath:TestCookieLivesForTwoTicks fastpath:TestForgedFirstSegmentMakesNoFlow"},
	{"RFC 3168 §6.1", "ECN is declined; its bits are harmless",
		"TestSYNACKHasWhatTheSYNHad TestECNBitsAreHarmless fastpath:TestECNIsDeclined"},
	{"RFC 5927 §4, §5", "ICMP: only about what is under way; hard errors are soft",
		"TestHardErrorsAreSoft TestHardErrorEndsAHandshake fastpath/wire:TestParseICMPError fastpath/wire:FuzzParseICMPError"},
	{"RFC 1191, RFC 8201", "path MTU", "TestPathMTU TestPlateaus"},
	{"transfer", "nothing leaves after a freeze, whatever happens",
		"TestFrozenConnectionIsSilent TestFreezeCancelsTheOwedACK TestSendingFromAFrozenConnectionPanics " +
			"TestFrozenConnectionIgnoresICMP"},
	{"transfer", "a thaw goes on as if nothing had happened",
		"TestThawGoesOnAsIfNothingHadHappened TestThawSendsWhatWasWrittenMeanwhile TestTimersHaveLeftWhatTheyHad"},
	{"transfer", "every state, with all that is under way; named refusals",
		"TestEveryStateIsExported TestExportRefusals TestMoreThanARecordHoldsIsNotExported TestRangesOutOfOrderGoAlong " +
			"TestImportRepeatsUnacknowledgedData TestRecordIsExact TestExportOfAnImportIsTheSameRecord"},
	{"transfer", "what is given up for good is reset", "TestDisownedConnectionIsReset"},
	{"transfer", "the next owner takes nothing back", "TestAnnounceTakesNothingBack TestPlainRecordIsEnough"},
}

// TestEveryRuleHasItsTest keeps the list true.
func TestEveryRuleHasItsTest(t *testing.T) {
	have := map[string]map[string]bool{}
	for _, r := range rules {
		for _, name := range strings.Fields(r.tests) {
			dir := "control/tcp"
			if d, n, ok := strings.Cut(name, ":"); ok {
				dir, name = d, n
			}
			if have[dir] == nil {
				have[dir] = testsOf(t, filepath.Join("../..", dir))
			}
			if !have[dir][name] {
				t.Errorf("%s, %s: there is no %s in %s", r.source, r.rule, name, dir)
			}
		}
	}
}

var testName = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

// testsOf are the names of a directory's tests.
func testsOf(t *testing.T, dir string) map[string]bool {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllSubmatch(b, -1) {
			names[string(m[1])] = true
		}
	}
	return names
}

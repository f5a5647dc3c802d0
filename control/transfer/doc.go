// Package transfer is the hand-over of one live connection from a routing host to a target host: the record that
// carries the connection, and the two machines that see to it that it has one owner at any time.
//
// Its central types are Record, Giver and Taker. A Giver (routing host) lives for one transfer: it offers a connection
// to some target hosts, one after the other, until one takes it. A Taker (target host) lives as long as its host's
// agent and knows all transfers and flows there. Both are pure: Step takes an event and the time and returns what to
// do, Deadline says when to call again with Timeout. They do no I/O, have no clock and no lock; the caller serialises.
//
// # Theory of operation
//
// The commit is the only point of no return. Before it this host is the owner, and each failure leads to the next
// candidate or to a thaw and a refusal to the client. After it the target may be the owner, and only the target's word
// makes the routing host the owner again: a Confirm that says "not imported", or the answer "unknown" to a Query. Both
// promise that the transfer will never import anything; the Taker remembers that (it fences the transfer), so a commit
// that arrives late, or again, is refused. If there is no word until Timeouts.GiveUp, the connection is aborted, and
// the client is told by a RST: it is better lost than owned twice.
//
// Nothing is assumed of the clocks of the two hosts, and nothing of the network but that a message arrives unchanged or
// not at all, and not later than Limits.Remember after it was sent (streams end long before). A restarted Taker is
// given the flows that it owns, and those that ended and that it was not told to Forget; what it had promised about
// others is safe, because the commits in question died with its streams. The model check in the tests (TestModel) goes
// through all reachable states of a Giver, two Takers and a network that loses, repeats and reorders, with restarts; and,
// with fewer of them, of the client's retransmissions, the lcore and its rings as well.
//
// Where the server speaks first, the offer brings the Dialogue so far, and a target may have to make the connection and
// play it to its server before the check has a result. To the machines that is a check that takes longer, and whose result
// lapses (Asked) when the transfer comes to nothing: no client hears of the connection before the commit.
//
// # Giver
//
// "next" is: the next candidate gets an Offer (state Offering), or if the transfer is unconditional an Assign (state
// Committed); without one: Thaw, Refuse (state Refused). An attempt that came to nothing is also reported with Failed.
//
//	state      event                        next       actions
//	Idle       Start                        Offering   Freeze, Offer
//	           Start without candidate      Refused    Refuse
//	           Start, unconditional         Freezing   Freeze
//	           Cancel                       Refused    Refuse
//	Freezing   Frozen                       Committed  Assign
//	           Timeout, Cancel              Refused    Thaw, Refuse
//	Offering   accepted, frozen             Committed  Commit
//	           accepted, not frozen yet     Accepted
//	           rejected                     next
//	           Frozen                       Offering   (keeps the record)
//	           PeerLost                     next
//	           Timeout                      next       Release
//	           Cancel                       Refused    Release, Thaw, Refuse
//	Accepted   Frozen                       Committed  Commit
//	           PeerLost                     next
//	           Timeout, Cancel              Refused    Release, Thaw, Refuse
//	Committed  Confirm imported             Confirmed  Switch
//	           Confirm not imported         next
//	           EndReport                    Confirmed  Switch, Remove
//	           PeerLost                     Querying   (the query goes out with PeerUp or Timeout)
//	           Timeout                      Querying   Query
//	Querying   Confirm, EndReport           as Committed
//	           QueryReply live              Confirmed  Switch
//	           QueryReply ended             Confirmed  Switch, Remove
//	           QueryReply unknown           next
//	           QueryReply reserved          Querying   (being imported)
//	           PeerUp                       Querying   Query
//	           Timeout                      Querying   Query
//	           Timeout after GiveUp         Aborted    Abort with Reset
//	Confirmed  Switched                     Switched
//	           EndReport                    Confirmed  Remove
//	           Timeout                      Confirmed  Switch
//	           Timeout after GiveUp         Aborted    Abort
//	Switched, Refused, Aborted              final
//
// All other pairs change nothing. A message of an older attempt changes nothing either; an accepted OfferReply among
// them is answered with Release. Events about another host than the current candidate are not for this attempt.
//
// # Hand-back
//
// A target host gives a connection back by the same machines the other way round: its agent runs a Giver for an
// unconditional transfer (the flow is frozen before), and the routing host has a Taker. Until the Confirm the giver may
// thaw, afterwards it has Left the flow: a state of its own, because a flow that left must not be reported as ended, and
// may come again. Where it goes from there is another transfer, so however often a connection moves, the forwarder's
// entry names its owner.
//
// # Taker
//
// Per transfer. Every answer goes to the routing host that asked.
//
//	state      event                        next       actions
//	(none)     Offer, unacceptable          (none)     OfferReply rejected
//	           Offer                        Checking   Check; refuses an older reservation of the incarnation
//	           Assign, unacceptable         Refused    Confirm not imported
//	           Assign                       Checking   Check; as by Offer
//	           Commit                       Refused    Confirm not imported
//	           Query                        Refused    QueryReply unknown, or what the incarnation is else
//	Checking   Asked                        Checking   (Lapsed follows if it becomes refused or forgotten before Live)
//	           Checked, well                Reserved   OfferReply accepted
//	           Checked, well, assigned      Importing  Import, or what else a Commit brings about
//	           Checked, not so              (none)     OfferReply rejected
//	           Timeout                      (none)     OfferReply rejected
//	           both of these, assigned      Refused    Confirm not imported
//	           Release                      (none)
//	           Commit                       Refused    Confirm not imported
//	           Query                        Refused    QueryReply unknown
//	Reserved   Offer                        Reserved   OfferReply accepted
//	           Commit                       Importing  Import
//	           Commit, while another        Importing  StopImport of that one; Import once it has a result,
//	           incarnation is imported                 or Confirm not imported if that takes too long
//	           Commit, unacceptable, or     Refused    Confirm not imported
//	           after that of a newer incarnation
//	           Release                      (none)
//	           Timeout                      (none)
//	           Query                        Refused    QueryReply unknown
//	Importing  Imported                     Live       Confirm imported; ends older incarnations of the tuple
//	           NotImported                  Refused    Confirm not imported
//	           Query                        Importing  QueryReply reserved
//	           Timeout                      Importing  StopImport
//	Live       Commit                       Live       Confirm imported
//	           Query                        Live       QueryReply live
//	           Ended                        Ended      EndReport
//	           Left                         Left       Forget
//	Ended      Commit                       Ended      Confirm imported
//	           Query                        Ended      QueryReply ended
//	           PeerUp                       Ended      EndReport
//	           Timeout                      (none)     Forget; not while nobody could be told of the end
//	Left       Commit                       Left       Confirm imported
//	           Query                        Left       QueryReply ended
//	           Timeout                      (none)
//	Refused    Offer                        Refused    OfferReply rejected
//	           Commit                       Refused    Confirm not imported
//	           Query                        Refused    QueryReply unknown
//	           Timeout                      (none)
//
// A repeated Assign is answered as a repeated Commit. All other pairs change nothing; an Imported or NotImported out of place panics, because it would mean a connection
// that was made twice. A Query with Transfer 0 never changes anything.
//
// # Record
//
// Version 1, all numbers big-endian. S is scaling, K SACK, T timestamps, 6 IPv6, F the client's FIN; the other bits of
// the flags are zero. The addresses have 4 octets each, or 16 with the flag 6. Equal records have equal octets.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          version 1            |0 0 0 6 T K S F|     hops      |   0
//	+-------------------------------+---------------+---------------+
//	|                             epoch                             |   4
//	|                           (8 octets)                          |
//	+---------------------------------------------------------------+
//	|                              IRS                              |  12
//	+---------------------------------------------------------------+
//	|                              ISS                              |  16
//	+-------------------------------+-------------------------------+
//	|         client port           |         service port          |  20
//	+-------------------------------+-------------------------------+
//	|         client's MSS          |            our MSS            |  24
//	+---------------+---------------+---------------+---------------+
//	| client's scale|   our scale   | length of job |       0       |  28
//	+---------------+---------------+---------------+---------------+
//	|                    ReadFrom (S): of Data[0]                   |  32
//	+---------------------------------------------------------------+
//	|                            RCV.NXT                            |  36
//	+---------------------------------------------------------------+
//	|                        highest ACK sent                       |  40
//	+---------------------------------------------------------------+
//	|                 highest right edge announced                  |  44
//	+---------------------------------------------------------------+
//	|                            SND.UNA                            |  48
//	+---------------------------------------------------------------+
//	|                            SND.NXT                            |  52
//	+---------------------------------------------------------------+
//	|                            SND.WND                            |  56
//	+---------------------------------------------------------------+
//	|                            SND.WL1                            |  60
//	+---------------------------------------------------------------+
//	|                            SND.WL2                            |  64
//	+---------------------------------------------------------------+
//	|                 our TSval = clock in ms + this                |  68
//	+---------------------------------------------------------------+
//	|                       highest TSval sent                      |  72
//	+---------------------------------------------------------------+
//	|                           TS.Recent                           |  76
//	+---------------------------------------------------------------+
//	|                 length of data (at most 256 KiB)              |  80
//	+---------------------------------------------------------------+
//	|                 length of send data (at most 256 KiB)         |  84
//	+---------------------------------------------------------------+
//	|                 length of application state (at most 1 MiB)   |  88
//	+---------------------------------------------------------------+
//	| ranges early  | SACKed ranges |0 0 N T 1 A S E|     phase     |  92
//	+---------------+---------------+---------------+---------------+
//	|                  place of the early FIN (E)                   |  96
//	+---------------------------------------------------------------+
//	|                  octets consumed, not opened                  | 100
//	+---------------------------------------------------------------+
//	|                    duplicate: left, right                     | 104
//	+---------------------------------------------------------------+
//	|                  octets to repeat before SND.NXT              | 112
//	+---------------------------------------------------------------+
//	|                         MAX.SND.WND                           | 116
//	+-------------------------------+---------------+---------------+
//	|           path MSS            |duplicate ACKs |    backoff    | 120
//	+-------------------------------+---------------+---------------+
//	|                 cwnd, ssthresh, recover, HighRxt              | 124
//	+---------------------------------------------------------------+
//	|                 end of the segment being timed (T)            | 140
//	+---------------+---------------+---------------+---------------+
//	| unanswered    | keepalive     | segments not  | 0 read, 1 dis-| 144
//	| keepalives    | probes        | acknowledged  | card, 2 refuse|
//	+---------------+---------------+---------------+---------------+
//	|  16 times of 8 octets, ns: Clock, SRTT, RTTVAR, RTO, user     | 148
//	|  timeout, keepalive idle and interval                         |
//	+---------------------------------------------------------------+
//	|  client address, service address, job, data, send data,       | 276
//	|  application state; SACKed ranges: left, right (4 each); early|
//	|  ranges: place, length (4 each), data. Without gaps           |
//	+---------------------------------------------------------------+
//
// E is a FIN out of order; S our FIN, A acknowledged, 1 first (see SndFINFirst); T a segment is being timed; N Nagle. What
// begins at 92 matters to a userspace target only: it continues the connection to the segment and the nanosecond. A kernel
// takes the part before, of connections without anything under way.
//
// Units: lengths in octets, sequence numbers as in RFC 9293 §3.4, epochs count up. Called by control/router (Giver) and
// control/target (Taker); control/tcp fills in and reads the Record; control/xcf carries the messages.
package transfer

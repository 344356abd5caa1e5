// Package check judges a run of the torture test: it takes the history that
// the actors wrote and what stood in the broker at the end, and says of each
// invariant of docs/ARCHITECTURE.md whether it held, was violated, and by which
// runs, or was never put to the test.
//
// It shares no code with the services: events are decoded here, folded by a
// table of this package's own, and the rules are written down once more, from
// the documents. A rule that is wrong in both places was wrong in the document.
//
// Each invariant is a function of one run's story where it can be, and linear
// in its length. What each needs from the history stands at the function.
//
// Time. Events have the broker's clock, history entries that of their writer.
// All are processes of one machine; where an order between the two matters,
// Bounds.Slack is granted. A worker whose clock the nemesis puts ahead corrects
// its entries itself.
package check

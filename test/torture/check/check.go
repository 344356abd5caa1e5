package check

import "fmt"

// Check judges a run of the torture test. It is a pure function of its input,
// linear in it but for the order of a run's executions and faults, which are few.
func Check(in Input) Report {
	s := gather(in)
	j := newJury()
	report := Report{Runs: len(s.order), stories: s}
	s.checkSubmits(j)
	talks := newTalks()
	for _, r := range s.order {
		steps := fold(r.events)
		report.Events += len(r.events)
		checkRounds(j, r, steps)
		checkEpochs(j, r, steps)
		checkStamps(j, r, steps)
		checkTable(j, r, steps)
		checkSequence(j, r)
		s.checkReaders(j, r)
		checkResume(j, r, steps)
		checkRemembered(j, r, steps)
		s.checkCharges(j, r, steps)
		s.checkTimes(j, r, steps)
		s.checkMovers(j, r, steps)
		s.checkCancels(j, r)
		s.checkProbe(j, r)
		s.checkLoss(j, r, steps)
		s.checkExecutions(j, r, steps)
		s.checkStatus(j, r, steps)
		talks.add(r, steps)
	}
	s.checkTalks(j, talks)
	checkRegisters(j, s, in.Dump.Log)
	report.Verdicts, report.Notes = j.done(), s.notes
	if n := s.leftOver(); n > 0 {
		report.Notes = append(report.Notes, fmt.Sprintf("%d work messages of runs that have ended are left over", n))
	}
	return report
}

// Story is the whole story of one run, in the order of time.
func (r Report) Story(run string) string { return r.stories.told(run) }

package archive

// SetFault makes a ask f before and after each step of its writes; an error ends it there, as a crash would.
func (a *Archiver) SetFault(f func(step string) error) { a.fault = f }

// OwnHeaders is how many headers a dead letter has beside its record's.
const OwnHeaders = ownHeaders

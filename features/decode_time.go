package features

import "millrace/windows"

// parseRFC3339 reads 2006-01-02T15:04:05.999999999+01:00, with any number of digits behind the point, rounded down to
// milliseconds. Package time would ask for the machine's own zone where the offset is not Z. Leap seconds are no
// time of day here, as in package time.
func parseRFC3339(s string) (t windows.Time, ok bool) {
	const form = "0000-00-00T00:00:00"
	if len(s) < len(form)+1 {
		return 0, false
	}
	for i, want := range []byte(form) {
		switch c := s[i]; {
		case want == '0' && !isDigit(c), want == 'T' && c != 'T' && c != 't', want < '0' && c != want, want == ':' && c != ':':
			return 0, false
		}
	}
	two := func(i int) int64 { return int64(s[i]-'0')*10 + int64(s[i+1]-'0') }
	year, month, day := two(0)*100+two(2), two(5), two(8)
	hour, minute, second := two(11), two(14), two(17)
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	ms := ((daysBefore(year, month)+day-1)*24+hour)*60 + minute
	ms = (ms*60 + second) * 1000

	s = s[len(form):]
	if s[0] == '.' {
		digits := 1
		for scale := int64(100); digits < len(s) && isDigit(s[digits]); digits++ {
			ms += int64(s[digits]-'0') * scale
			scale /= 10
		}
		if digits == 1 {
			return 0, false
		}
		s = s[digits:]
	}
	switch {
	case s == "Z" || s == "z":
		return windows.Time(ms), true
	case len(s) != len("+00:00") || s[0] != '+' && s[0] != '-' || s[3] != ':':
		return 0, false
	}
	for _, i := range []int{1, 2, 4, 5} {
		if !isDigit(s[i]) {
			return 0, false
		}
	}
	hour, minute = two(1), two(4)
	if hour > 23 || minute > 59 {
		return 0, false
	}
	offset := (hour*60 + minute) * 60_000
	if s[0] == '-' {
		offset = -offset
	}
	return windows.Time(ms - offset), true
}

func isLeap(year int64) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysIn(year, month int64) int64 {
	switch month {
	case 2:
		if isLeap(year) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysBefore counts the days from 1970-01-01 to the first of a month of a year from 0 on.
func daysBefore(year, month int64) int64 {
	const untilEpoch = 719_528 // from 0000-01-01
	days := 365*year + (year+3)/4 - (year+99)/100 + (year+399)/400 - untilEpoch
	for m := int64(1); m < month; m++ {
		days += daysIn(year, m)
	}
	return days
}

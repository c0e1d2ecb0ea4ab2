package bench

// queue holds times, oldest first, in memory that it keeps.
type queue struct {
	times []int64
	head  int
}

func (q *queue) len() int { return len(q.times) - q.head }

func (q *queue) push(t int64) {
	if q.head > 64 && q.head > len(q.times)/2 {
		q.times = q.times[:copy(q.times, q.times[q.head:])]
		q.head = 0
	}
	q.times = append(q.times, t)
}

func (q *queue) pop() int64 {
	t := q.times[q.head]
	if q.head++; q.head == len(q.times) {
		q.times, q.head = q.times[:0], 0
	}
	return t
}

// all is a copy of what is in it.
func (q *queue) all() []int64 { return append([]int64(nil), q.times[q.head:]...) }

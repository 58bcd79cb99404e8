"""Everything that `make bench` prints."""

from benchmarks import memory, speed

speed.main()
memory.main()

"""Everything that `make bench` prints."""

from benchmarks import diffusion_speed, memory, speed

speed.main()
memory.main()
diffusion_speed.main()

package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -type baton_kind -type baton_status Import import.bpf.c -- -O2 -Wall -Wextra -Werror
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf Guard guard.bpf.c -- -O2 -Wall -Wextra -Werror
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf Lockstep lockstep.bpf.c -- -O2 -Wall -Wextra -Werror
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -type baton_taken -type baton_phase -type baton_close -type baton_change Move move.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror

/* Runs a program for which a system call fails, as under the seccomp profile of a
 * container: forbid ERRNO setup|enter|register|openat2 PROGRAM [ARGUMENT...], where the
 * first three are io_uring's. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 4)
        return 99;
    unsigned call = strcmp(argv[2], "setup") == 0     ? __NR_io_uring_setup
                    : strcmp(argv[2], "enter") == 0   ? __NR_io_uring_enter
                    : strcmp(argv[2], "openat2") == 0 ? __NR_openat2
                                                      : __NR_io_uring_register;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (atoi(argv[1]) & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {
        .len = sizeof filter / sizeof filter[0],
        .filter = filter,
    };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("forbid");
        return 98;
    }
    execv(argv[3], argv + 3);
    perror("forbid");
    return 97;
}

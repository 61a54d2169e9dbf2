/* Runs a command and says on a descriptor what it took: ns of wall time, us of CPU time, KiB of memory at its peak, and
   its wait status. A child's peak includes what its parent had when it was started: this program has next to nothing.

   usage: timed DESCRIPTOR SECONDS COMMAND [WORD]...     the command is killed after so many seconds */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CANNOT_BE_RUN = 127 };

static pid_t child;

static void end_it(int signal)
{
    (void)signal;
    kill(child, SIGKILL);
}

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static long long microseconds(struct timeval time)
{
    return time.tv_sec * 1000000LL + time.tv_usec;
}

int main(int count, char **words)
{
    if (count < 4) {
        fputs("usage: timed DESCRIPTOR SECONDS COMMAND [WORD]...\n", stderr);
        return 2;
    }
    int report = atoi(words[1]);
    long long begin = now_ns();
    child = fork();
    if (child < 0) {
        perror("timed: fork");
        return 1;
    }
    if (child == 0) {
        close(report);
        execv(words[3], words + 3);
        perror(words[3]);
        _exit(CANNOT_BE_RUN);
    }
    signal(SIGALRM, end_it);
    alarm((unsigned)atoi(words[2]));
    int status;
    struct rusage usage;
    while (wait4(child, &status, 0, &usage) < 0)
        ;
    dprintf(report, "%lld %lld %ld %d\n", now_ns() - begin,
            microseconds(usage.ru_utime) + microseconds(usage.ru_stime), usage.ru_maxrss, status);
    return 0;
}

/* Lets User-mode Linux run where the processor has more registers than it knows of (AMX).
 *
 * What belongs here: one system call. What does not: anything else; it is compiled by machine.py and preloaded.
 *
 * User-mode Linux 6.1 keeps 2,696 bytes of its processes' extended registers. The host takes back only the whole
 * set, which is larger with AMX, and refuses less with EFAULT. So what lies behind those bytes is first read from the
 * process: its AMX registers, which nothing in there uses.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define EXTENDED 0x202 /* NT_X86_XSTATE */

/* Not on the stack: User-mode Linux calls from small ones. It does so from one thread. */
static char whole[65536] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
    static long (*real)(enum __ptrace_request, ...);
    struct iovec all = { whole, sizeof whole }, *given;
    void *address, *data;
    pid_t process;
    va_list rest;
    long done;

    va_start(rest, request);
    process = va_arg(rest, pid_t);
    address = va_arg(rest, void *);
    data = va_arg(rest, void *);
    va_end(rest);
    given = data;
    if (!real)
        real = (long (*)(enum __ptrace_request, ...)) dlsym(RTLD_NEXT, "ptrace");
    done = real(request, process, address, data);
    if (done == 0 || errno != EFAULT || request != PTRACE_SETREGSET || address != (void *) EXTENDED)
        return done;
    if (real(PTRACE_GETREGSET, process, address, &all) < 0 || all.iov_len < given->iov_len) {
        errno = EFAULT;
        return -1;
    }
    memcpy(whole, given->iov_base, given->iov_len);
    return real(PTRACE_SETREGSET, process, address, &all);
}

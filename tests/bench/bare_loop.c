/* The yardstick: libpcap reads a capture file and nothing is done with the packets but counting them.

   usage: bare_loop LIBPCAP TRACE
   LIBPCAP is loaded at run time, so that the loop measures the very library that pcapy-ng uses, and needs no headers. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct pcap pcap_t;
struct pcap_pkthdr;
typedef void handler_t(uint8_t *user, const struct pcap_pkthdr *header, const uint8_t *bytes);

enum { PCAP_ERRBUF_SIZE = 256 };

static pcap_t *(*open_offline)(const char *path, char *error);
static int (*loop)(pcap_t *handle, int count, handler_t *handler, uint8_t *user);
static char *(*last_error)(pcap_t *handle);
static void (*close_handle)(pcap_t *handle);
static const char *(*version)(void);

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bare_loop: %s: %s\n", what, why);
    exit(1);
}

/* POSIX lets a function pointer be stored through a pointer to void *. */
static void find(void *library, const char *name, void *function)
{
    *(void **)function = dlsym(library, name);
    if (*(void **)function == NULL)
        fail(name, dlerror());
}

static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    if (library == NULL)
        fail(path, dlerror());
    find(library, "pcap_open_offline", &open_offline);
    find(library, "pcap_loop", &loop);
    find(library, "pcap_geterr", &last_error);
    find(library, "pcap_close", &close_handle);
    find(library, "pcap_lib_version", &version);
}

static void count(uint8_t *user, const struct pcap_pkthdr *header, const uint8_t *bytes)
{
    (void)header;
    (void)bytes;
    ++*(uint64_t *)(void *)user;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage", "bare_loop LIBPCAP TRACE");
    load(argv[1]);
    char error[PCAP_ERRBUF_SIZE] = "";
    pcap_t *handle = open_offline(argv[2], error);
    if (handle == NULL)
        fail(argv[2], error);
    uint64_t packets = 0;
    if (loop(handle, -1, count, (uint8_t *)&packets) < 0)
        fail(argv[2], last_error(handle));
    close_handle(handle);
    printf("%llu packets, %s\n", (unsigned long long)packets, version());
    return 0;
}

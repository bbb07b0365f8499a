// A server that knows nothing of forkpool: it binds, listens and accepts, each of which blocks. Before that it does what its
// first argument says; the second is its port. It is linked statically, so no library can be put before its calls.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in any(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    return address;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int bound(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = any(port);
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) die("bind");
    return fd;
}

static const char *status = "200 OK";

static void serve_some(int fd, int connections) {
    // A queue as short as many a program's.
    if (listen(fd, 4)) die("listen");
    for (; connections; connections--) {
        int client = accept(fd, NULL, NULL);
        if (client < 0) die("accept");
        char request[4096], answer[256];
        size_t got = 0;
        ssize_t len;
        while (got < sizeof request - 1 && (len = read(client, request + got, sizeof request - 1 - got)) > 0) {
            request[got += len] = 0;
            if (strstr(request, "\r\n\r\n")) break;
        }
        if (strstr(request, "GET /slow")) usleep(300000);
        int size = sprintf(answer,
            "HTTP/1.1 %s\r\nContent-Length: 12\r\nX-Pid: %d\r\nConnection: close\r\n\r\nhello world\n", status, getpid());
        if (write(client, answer, size) < 0) perror("write");
        close(client);
    }
}

static void serve(int fd) {
    serve_some(fd, -1);
}

// Closes its socket after one connection, and goes on. An epoll instance keeps it if others have it open.
static void close_soon(int port) {
    int fd = bound(port), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    serve_some(fd, 1);
    close(fd);
    for (;;) pause();
}

// An address that another thread changes all the time.
static struct sockaddr_in changing;
static int own;

static void *change(void *unused) {
    (void)unused;
    for (;;) {
        *(volatile in_port_t *)&changing.sin_port = htons(own);
        *(volatile in_port_t *)&changing.sin_port = htons(1);
        *(volatile sa_family_t *)&changing.sin_family = AF_INET6;
        *(volatile sa_family_t *)&changing.sin_family = AF_INET;
    }
    return NULL;
}

static void lie(int port) {
    pthread_t thread;
    changing = any(port);
    own = port;
    pthread_create(&thread, NULL, change, NULL);
    for (int i = 0; i < 2000; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        (void)!bind(fd, (struct sockaddr *)&changing, sizeof changing);
        (void)!bind(i, (struct sockaddr *)(long)i, i);
        close(fd);
    }
}

// Processes that are killed at any moment of their calls.
static void die_inside(int port) {
    for (int i = 0; i < 300; i++) {
        pid_t pid = fork();
        if (pid == 0)
            for (;;) close(bound(port));
        if (i % 3 == 0) usleep(i);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

static void *flood(void *port) {
    struct sockaddr_in address = any((int)(long)port);
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        (void)!bind(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
    }
    return NULL;
}

// An address in memory that nobody ever provides.
static void block(void) {
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {
        .range = {.start = (unsigned long)page, .len = 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range)) {
        puts("it has no userfaultfd(2)");
        fflush(stdout);
        pause();
    }
    puts("blocks its keeper");
    fflush(stdout);
    bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)page, sizeof(struct sockaddr_in));
}

#ifdef __x86_64__
static long call32(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}
#endif

// By the calls of 32-bit programs: bind(2) if `multiplexed` is 0, else socketcall(2).
static int bound32(int port, int multiplexed) {
#ifdef __x86_64__
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = any(port);
    memcpy(low, &address, sizeof address);
    unsigned list[3] = {fd, (unsigned)(long)low, sizeof address};
    memcpy(low + 64, list, sizeof list);
    long result = multiplexed ? call32(102, 2, (long)low + 64, 0) : call32(361, fd, (long)low, sizeof address);
    if (result) {
        errno = -result;
        die("bind of 32 bits");
    }
    return fd;
#else
    (void)multiplexed;
    return bound(port);
#endif
}

int main(int count, char **words) {
    const char *first = count > 2 ? words[1] : "";
    int port = atoi(words[count - 1]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(first, "sick")) status = "503 Service Unavailable";
    if (!strcmp(first, "hidden")) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (!strcmp(first, "lies")) lie(port);
    if (!strcmp(first, "dies")) die_inside(port);
    if (!strcmp(first, "blocks") && !strcmp(getenv("FORKPOOL_WORKER_ID"), "1")) block();
    if (!strcmp(first, "floods")) {
        pthread_t thread;
        for (int i = 0; i < 2; i++) pthread_create(&thread, NULL, flood, (void *)(long)(i ? port : 1));
    }
    if (!strcmp(first, "elsewhere")) {
        struct sockaddr_in address = any(0);
        socklen_t len = sizeof address;
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr *)&address, len)) die("bind");
        getsockname(fd, (struct sockaddr *)&address, &len);
        close(fd);
        if (listen(bound(ntohs(address.sin_port)), 1)) die("listen");
        printf("listens on port %d\n", ntohs(address.sin_port));
    }
    if (!strcmp(first, "watches")) {
        int fd = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
        struct epoll_event event = {.events = EPOLLIN};
        struct sockaddr_in address = any(port);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
        if (bind(fd, (struct sockaddr *)&address, sizeof address)) die("bind");
        serve(fd);
    }
    if (!strcmp(first, "both") && listen(bound(atoi(getenv("OTHER"))), 1)) die("listen");
    if (!strcmp(first, "closes")) close_soon(port);
    if (!strcmp(first, "old")) serve(bound32(port, 0));
    if (!strcmp(first, "older")) serve(bound32(port, 1));
    serve(bound(port));
}

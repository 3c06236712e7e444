/* A stand-in for NCCL beside that for the CUDA driver (cuda.c): it moves nothing, and says in the driver's log what it was
 * asked for, so that the order of calls can be read. One rank, or several processes that know nothing of each other.
 *
 * STANDIN_NCCL_FAIL=N       from the N-th collective (from 1) on the communicator tells of an error that came later
 *
 * The driver is told which memory a collective reads and writes and on which stream: until something has waited for
 * that stream, no kernel and no copy may touch it.
 *
 * The log: N call elements type. Types are NCCL's numbers: 7 is f32, 9 is bf16.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void standin_note(const char *text); /* of cuda.c */
void standin_pending(const void *from, size_t from_bytes, const void *to, size_t to_bytes, void *stream); /* and this */

/* What ncclCommInitRank gives out. */
typedef struct {
    int size;
} Comm;

static size_t width(int type) {
    return type == 7 ? 4 : 2;
}

typedef struct {
    char internal[128];
} Id;

static long calls;

static int call(const char *name, size_t count, int type) {
    char text[100];
    snprintf(text, sizeof text, "N %s %zu %d", name, count, type);
    standin_note(text);
    calls++;
    return 0;
}

int ncclGetVersion(int *version) {
    *version = 22703;
    return 0;
}
int ncclGetUniqueId(Id *id) {
    memset(id, 1, sizeof *id);
    return 0;
}
int ncclCommInitRank(void **comm, int size, Id id, int rank) {
    Comm *made = malloc(sizeof(Comm));
    made->size = size;
    *comm = made;
    char text[100];
    snprintf(text, sizeof text, "N start %d %d", size, rank);
    standin_note(text);
    return 0;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, void *comm, void *stream) {
    standin_pending(from, count * width(type), to, count * width(type), stream);
    return call("all-reduce", count, type);
}
int ncclReduceScatter(const void *from, void *to, size_t count, int type, int op, void *comm, void *stream) {
    standin_pending(from, ((Comm *)comm)->size * count * width(type), to, count * width(type), stream);
    return call("reduce-scatter", count, type);
}
int ncclAllGather(const void *from, void *to, size_t count, int type, void *comm, void *stream) {
    standin_pending(from, count * width(type), to, ((Comm *)comm)->size * count * width(type), stream);
    return call("all-gather", count, type);
}
int ncclCommGetAsyncError(void *comm, int *error) {
    const char *fail = getenv("STANDIN_NCCL_FAIL");
    *error = fail && *fail && calls >= atol(fail) ? 6 : 0; /* ncclRemoteError */
    return 0;
}
const char *ncclGetErrorString(int error) {
    return error == 6 ? "remote process exited or there was a network error" : error ? "an error" : "no error";
}
const char *ncclGetLastError(void *comm) {
    return "";
}

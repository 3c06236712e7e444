/* A stand-in for the CUDA driver (libcuda): it computes nothing, counts everything, and fails on request.
 *
 * A program built with `--features cuda` runs on it without a GPU. Every launch, copy, wait and allocation is real and
 * is logged; what is read back from the "device" is zeros. Use it to count and to inject faults, never to compute.
 *
 * STANDIN_LOG=FILE          a line per event, see below; without it nothing is written
 * STANDIN_MEMORY_GB=X       size of the card (85.52, an H100 of 80 GB)
 * STANDIN_TAKEN=N           bytes of it that others have: allocations beyond the rest are out of memory
 * STANDIN_CAPABILITY=90     compute capability times 10
 * STANDIN_DRIVER=13000      version of CUDA that the driver is of
 * STANDIN_LAUNCH_NS=N       what a launch costs the host, spent waiting
 * STANDIN_FAIL_ALLOC=N      the N-th allocation of device memory (from 1) and those after it are out of memory
 * STANDIN_FAIL_LAUNCH=N     the N-th launch is refused: too many resources requested
 * STANDIN_FAIL_WAIT=N       the N-th wait reports an illegal address; as on a real card every call fails from then on
 *
 * The log: seconds since the start, a letter, details. A context that is out of order after STANDIN_FAIL_WAIT says so
 * with X.
 *   L name@function gx gy gz b bx by bz s shared      launch: grid, block, bytes of shared memory
 *   U bytes    D bytes    C bytes                     copy to the device, from it, on it
 *   A bytes used U       F bytes used U               memory allocated, freed; bytes in use afterwards
 *   O bytes used U                                    out of memory
 *   H bytes                                           pinned memory of the host
 *   K name@function                                   a kernel loaded
 *   W event    Y event    Y stream                    a wait on the device, by the host for an event, for a stream
 *   Y event of a collective                           by the host for one that nothing has waited for yet
 *   E record context    E hold context                an event behind all work so far, all later work held for an event
 *   R what                                            a race: a kernel or a copy takes memory of a collective (nccl.c)
 *                                                     that nothing has waited for; the call is refused
 *   X call                                            a call refused, with its error
 *   T launches U-copies U-bytes D-copies D-bytes waits allocations peak-bytes     the totals, at the end
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef int Result; /* CUresult */
typedef uint64_t Pointer; /* CUdeviceptr */

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_PTX = 218,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
};

/* --- options, counts and the log ------------------------------------------------------------------------------- */

static struct {
    uint64_t memory, taken;
    int capability, driver;
    long launch_ns;
    long fail_alloc, fail_launch, fail_wait; /* 0 for never */
} options = {.memory = 85520809984ull, .capability = 90, .driver = 13000};

static struct {
    uint64_t launches, uploads, upload_bytes, downloads, download_bytes, waits, allocations, used, peak;
} count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* around everything below and the counts of memory */
static FILE *log_file;
static double start;
static int broken; /* the error that every call returns once the context is lost */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t add(uint64_t *counter, uint64_t by) {
    return __sync_add_and_fetch(counter, by);
}

static void note(const char *format, ...) {
    if (!log_file) return;
    va_list values;
    va_start(values, format);
    pthread_mutex_lock(&lock);
    fprintf(log_file, "%.6f ", now() - start);
    vfprintf(log_file, format, values);
    fputc('\n', log_file);
    pthread_mutex_unlock(&lock);
    va_end(values);
}

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
    start = now();
    const char *path = getenv("STANDIN_LOG"), *gigabytes = getenv("STANDIN_MEMORY_GB");
    if (path && *path && (log_file = fopen(path, "w"))) setvbuf(log_file, NULL, _IOFBF, 1 << 20);
    if (gigabytes && *gigabytes) options.memory = (uint64_t)(atof(gigabytes) * 1e9);
    options.taken = number("STANDIN_TAKEN", 0);
    options.capability = (int)number("STANDIN_CAPABILITY", options.capability);
    options.driver = (int)number("STANDIN_DRIVER", options.driver);
    options.launch_ns = number("STANDIN_LAUNCH_NS", 0);
    options.fail_alloc = number("STANDIN_FAIL_ALLOC", 0);
    options.fail_launch = number("STANDIN_FAIL_LAUNCH", 0);
    options.fail_wait = number("STANDIN_FAIL_WAIT", 0);
}

__attribute__((destructor)) static void end(void) {
    note("T %lu %lu %lu %lu %lu %lu %lu %lu", count.launches, count.uploads, count.upload_bytes, count.downloads,
         count.download_bytes, count.waits, count.allocations, count.peak);
    if (log_file) fclose(log_file);
    log_file = NULL;
}

/* Ends the call with `error`, and says so in the log. */
static Result refuse(const char *call, Result error) {
    note("X %s %d", call, error);
    return error;
}

static Result race(const char *what) {
    note("R %s", what);
    return refuse(what, ILLEGAL_ADDRESS);
}

#define ALIVE(call) \
    do { \
        if (broken) return refuse(call, broken); \
    } while (0)

/* --- the device ------------------------------------------------------------------------------------------------ */

Result cuInit(unsigned flags) {
    return SUCCESS;
}
Result cuDriverGetVersion(int *version) {
    *version = options.driver;
    return SUCCESS;
}
Result cuDeviceGetCount(int *devices) {
    *devices = 1;
    return SUCCESS;
}
Result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return SUCCESS;
}
Result cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "stand-in for a GPU: computes nothing");
    return SUCCESS;
}
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 1: *value = 1024; break; /* threads of a block */
        case 2:
        case 3: *value = 1024; break; /* block x, y */
        case 4: *value = 64; break; /* block z */
        case 5: *value = 2147483647; break; /* grid x */
        case 6:
        case 7: *value = 65535; break; /* grid y, z */
        case 8: *value = 49152; break; /* shared memory of a block */
        case 10: *value = 32; break; /* warp */
        case 16: *value = options.capability >= 90 ? 132 : 108; break; /* multiprocessors: H100, A100 */
        case 75: *value = options.capability / 10; break; /* compute capability */
        case 76: *value = options.capability % 10; break;
        case 97: *value = options.capability >= 90 ? 232448 : 166912; break; /* shared memory on request */
        default: *value = 1; break;
    }
    return SUCCESS;
}
Result cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = options.memory;
    return SUCCESS;
}
Result cuMemGetInfo_v2(size_t *available, size_t *total) {
    *total = options.memory;
    uint64_t used = count.used + options.taken;
    *available = used < options.memory ? options.memory - used : 0;
    return SUCCESS;
}

/* --- collectives that nothing has waited for --------------------------------------------------------------------- */

typedef struct {
    Pointer from, from_end, to, to_end;
    void *stream;
    uint64_t number;
} Collective;
static Collective *collectives;
static size_t collective_count, collective_room;
static uint64_t collective_number; /* the last one's */

/* For the stand-in for NCCL: a collective was given to `stream`, which reads and writes this memory. */
void standin_pending(const void *from, size_t from_bytes, const void *to, size_t to_bytes, void *stream) {
    pthread_mutex_lock(&lock);
    if (collective_count == collective_room) {
        collective_room = collective_room ? 2 * collective_room : 64;
        collectives = realloc(collectives, collective_room * sizeof(Collective));
    }
    Pointer a = (Pointer)from, b = (Pointer)to;
    collectives[collective_count++] =
        (Collective){a, a + from_bytes, b, b + to_bytes, stream, ++collective_number};
    pthread_mutex_unlock(&lock);
}

/* Something waits for all collectives of `stream` (NULL: of all) up to the `last`-th: how many nothing had waited for. */
static size_t landed(void *stream, uint64_t last) {
    pthread_mutex_lock(&lock);
    size_t left = 0;
    for (size_t i = 0; i < collective_count; i++)
        if ((stream && collectives[i].stream != stream) || collectives[i].number > last)
            collectives[left++] = collectives[i];
    size_t gone = collective_count - left;
    collective_count = left;
    pthread_mutex_unlock(&lock);
    return gone;
}

/* Whether `bytes` from `at` on are a collective's that nothing has waited for. */
static int is_flying(Pointer at, uint64_t bytes) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < collective_count && !found; i++) {
        Collective *c = &collectives[i];
        found = (at < c->from_end && at + bytes > c->from) || (at < c->to_end && at + bytes > c->to);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* --- contexts, streams, events: handles, and what an event stands for --------------------------------------------- */

typedef struct {
    void *stream; /* that it was recorded on; NULL for the context */
    uint64_t last; /* collective before it */
} Event;

static void *handle(void) {
    static uint64_t last = 0x10000000;
    return (void *)add(&last, 16);
}

static void recorded(Event *event, void *stream) {
    pthread_mutex_lock(&lock);
    *event = (Event){stream, collective_number};
    pthread_mutex_unlock(&lock);
}

Result cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)0x1000;
    return SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
    return SUCCESS;
}
Result cuCtxSetCurrent(void *context) {
    return SUCCESS;
}
Result cuCtxGetCurrent(void **context) {
    *context = (void *)0x1000;
    return SUCCESS;
}
Result cuCtxSynchronize(void) {
    ALIVE("cuCtxSynchronize");
    landed(NULL, UINT64_MAX);
    return SUCCESS;
}
Result cuStreamCreate(void **stream, unsigned flags) {
    *stream = handle();
    return SUCCESS;
}
Result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    return cuStreamCreate(stream, flags);
}
Result cuStreamDestroy_v2(void *stream) {
    return SUCCESS;
}
Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    ALIVE("cuStreamWaitEvent");
    note("W event");
    return SUCCESS;
}
Result cuEventCreate(void **event, unsigned flags) {
    ALIVE("cuEventCreate");
    *event = calloc(1, sizeof(Event));
    return SUCCESS;
}
Result cuEventRecord(void *event, void *stream) {
    ALIVE("cuEventRecord");
    recorded(event, stream);
    return SUCCESS;
}
Result cuEventDestroy_v2(void *event) {
    free(event);
    return SUCCESS;
}
Result cuEventQuery(void *event) {
    ALIVE("cuEventQuery");
    return SUCCESS;
}
Result cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    *milliseconds = 1;
    return SUCCESS;
}

/* A wait of the host: where a fault of a kernel shows on a real card. */
static Result wait_for(const char *what) {
    uint64_t waits = add(&count.waits, 1);
    note("Y %s", what);
    if (options.fail_wait && waits == (uint64_t)options.fail_wait) broken = ILLEGAL_ADDRESS;
    ALIVE(what);
    return SUCCESS;
}
Result cuEventSynchronize(void *event) {
    size_t gone = landed(((Event *)event)->stream, ((Event *)event)->last);
    return wait_for(gone ? "event of a collective" : "event");
}
Result cuStreamSynchronize(void *stream) {
    landed(stream, UINT64_MAX);
    return wait_for("stream");
}

/* --- memory ---------------------------------------------------------------------------------------------------- */

typedef struct {
    Pointer at;
    uint64_t bytes;
} Block;
static Block *blocks;
static size_t block_count, block_room;

static Result allocate(Pointer *at, size_t bytes) {
    static Pointer next = 0x700000000000ull; /* as far up as a real driver's, so that nothing mistakes it for a host's */
    static uint64_t asked;
    ALIVE("allocation");
    if (!bytes) return refuse("allocation of nothing", INVALID_VALUE);
    pthread_mutex_lock(&lock);
    asked++;
    int refused = options.fail_alloc && asked >= (uint64_t)options.fail_alloc;
    if (refused || count.used + options.taken + bytes > options.memory) {
        pthread_mutex_unlock(&lock);
        note("O %zu used %lu", bytes, count.used);
        return OUT_OF_MEMORY;
    }
    *at = next;
    next += (bytes + (1 << 21) - 1) & ~((1ull << 21) - 1);
    if (block_count == block_room) {
        block_room = block_room ? 2 * block_room : 1024;
        blocks = realloc(blocks, block_room * sizeof(Block));
    }
    blocks[block_count++] = (Block){*at, bytes};
    count.used += bytes;
    count.allocations++;
    if (count.used > count.peak) count.peak = count.used;
    pthread_mutex_unlock(&lock);
    note("A %zu used %lu", bytes, count.used);
    return SUCCESS;
}

static Result release(Pointer at) {
    uint64_t bytes = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < block_count; i++)
        if (blocks[i].at == at) {
            bytes = blocks[i].bytes;
            blocks[i] = blocks[--block_count];
            break;
        }
    count.used -= bytes;
    pthread_mutex_unlock(&lock);
    note("F %lu used %lu", bytes, count.used);
    if (bytes && is_flying(at, bytes)) return race("free");
    return bytes ? SUCCESS : refuse("free", INVALID_VALUE);
}

/* Whether `bytes` from `at` lie in one allocation. */
static int is_allocated(Pointer at, uint64_t bytes) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < block_count && !found; i++)
        found = at >= blocks[i].at && at + bytes <= blocks[i].at + blocks[i].bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

Result cuMemAllocAsync(Pointer *at, size_t bytes, void *stream) {
    return allocate(at, bytes);
}
Result cuMemAlloc_v2(Pointer *at, size_t bytes) {
    return allocate(at, bytes);
}
Result cuMemFreeAsync(Pointer at, void *stream) {
    return release(at);
}
Result cuMemFree_v2(Pointer at) {
    return release(at);
}
Result cuMemAllocHost_v2(void **at, size_t bytes) {
    *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    note("H %zu", bytes);
    return *at == MAP_FAILED ? OUT_OF_MEMORY : SUCCESS;
}
Result cuMemHostAlloc(void **at, size_t bytes, unsigned flags) {
    return cuMemAllocHost_v2(at, bytes);
}
Result cuMemFreeHost(void *at) {
    return SUCCESS; /* of unknown length; address space only */
}

static Result upload(Pointer to, uint64_t reach, uint64_t bytes) {
    ALIVE("upload");
    if (!is_allocated(to, reach)) return refuse("upload", INVALID_VALUE);
    if (is_flying(to, reach)) return race("upload");
    add(&count.uploads, 1);
    add(&count.upload_bytes, bytes);
    note("U %lu", bytes);
    return SUCCESS;
}
static Result download(Pointer from, uint64_t reach, uint64_t bytes) {
    ALIVE("download");
    if (!is_allocated(from, reach)) return refuse("download", INVALID_VALUE);
    if (is_flying(from, reach)) return race("download");
    add(&count.downloads, 1);
    add(&count.download_bytes, bytes);
    note("D %lu", bytes);
    return SUCCESS;
}

Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, void *stream) {
    return upload(to, bytes, bytes);
}
Result cuMemcpyHtoD_v2(Pointer to, const void *from, size_t bytes) {
    return upload(to, bytes, bytes);
}
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, void *stream) {
    memset(to, 0, bytes);
    return download(from, bytes, bytes);
}
Result cuMemcpyDtoH_v2(void *to, Pointer from, size_t bytes) {
    return cuMemcpyDtoHAsync_v2(to, from, bytes, NULL);
}
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void *stream) {
    ALIVE("copy");
    if (!is_allocated(to, bytes) || !is_allocated(from, bytes)) return refuse("copy", INVALID_VALUE);
    if (is_flying(to, bytes) || is_flying(from, bytes)) return race("copy");
    note("C %zu", bytes);
    return SUCCESS;
}

typedef struct { /* CUDA_MEMCPY2D */
    size_t from_x, from_y;
    int from_type; /* 1: host, 2: device */
    const void *from_host;
    Pointer from_device;
    void *from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_type;
    void *to_host;
    Pointer to_device;
    void *to_array;
    size_t to_pitch;
    size_t width, height;
} Copy2D;

Result cuMemcpy2DAsync_v2(const Copy2D *copy, void *stream) {
    uint64_t bytes = copy->width * copy->height;
    uint64_t last = copy->height ? copy->height - 1 : 0;
    if (copy->from_type == 1) return upload(copy->to_device, last * copy->to_pitch + copy->width, bytes);
    for (size_t row = 0; row < copy->height; row++)
        memset((char *)copy->to_host + row * copy->to_pitch, 0, copy->width);
    return download(copy->from_device, last * copy->from_pitch + copy->width, bytes);
}
Result cuMemsetD8Async(Pointer at, unsigned char value, size_t bytes, void *stream) {
    ALIVE("memset");
    return is_allocated(at, bytes) ? SUCCESS : refuse("memset", INVALID_VALUE);
}

/* --- kernels --------------------------------------------------------------------------------------------------- */

typedef struct {
    char name[200];
    char parameters[70]; /* as the stand-in for NVRTC says; empty of what the real one has compiled */
} Function;

/* A module is a copy of its text. */
Result cuModuleLoadData(void **module, const void *image) {
    ALIVE("cuModuleLoadData");
    if (!strstr(image, ".entry")) return refuse("cuModuleLoadData", INVALID_PTX);
    *module = strdup(image);
    return SUCCESS;
}
Result cuModuleGetFunction(void **function, void *module, const char *name) {
    char entry[256];
    snprintf(entry, sizeof entry, ".entry %s", name);
    if (!strstr(module, entry)) return refuse("cuModuleGetFunction", NOT_FOUND);
    Function *found = calloc(1, sizeof(Function));
    snprintf(found->name, sizeof found->name, "%s", name);
    sscanf(module, "// of the stand-in: parameters %69[pv]", found->parameters);
    *function = found;
    note("K %s@%p", found->name, (void *)found);
    return SUCCESS;
}
Result cuModuleUnload(void *module) {
    free(module);
    return SUCCESS;
}
Result cuFuncSetAttribute(void *function, int attribute, int value) {
    ALIVE("cuFuncSetAttribute");
    return SUCCESS;
}
Result cuFuncGetAttribute(int *value, int attribute, void *function) {
    *value = 0;
    return SUCCESS;
}

static void spend(long nanoseconds) {
    double until = now() + nanoseconds * 1e-9;
    while (now() < until) {
    }
}

Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **arguments, void **extra) {
    ALIVE("cuLaunchKernel");
    const char *name = ((Function *)function)->name;
    uint64_t launches = add(&count.launches, 1);
    note("L %s@%p %u %u %u b %u %u %u s %u", name, function, gx, gy, gz, bx, by, bz, shared);
    if (options.fail_launch && launches == (uint64_t)options.fail_launch) return refuse(name, LAUNCH_OUT_OF_RESOURCES);
    /* What a real driver refuses. */
    uint64_t threads = (uint64_t)bx * by * bz;
    int limit;
    cuDeviceGetAttribute(&limit, 97, 0);
    if (!gx || !gy || !gz || gx > 2147483647u || gy > 65535 || gz > 65535) return refuse(name, INVALID_VALUE);
    if (!threads || threads > 1024 || bz > 64 || shared > (unsigned)limit) return refuse(name, INVALID_VALUE);
    const char *parameters = ((Function *)function)->parameters;
    for (size_t i = 0; arguments && parameters[i]; i++)
        if (parameters[i] == 'p' && is_flying(*(Pointer *)arguments[i], 1)) return race(name);
    if (options.launch_ns) spend(options.launch_ns);
    return SUCCESS;
}

/* A tensor map is refused where a real driver refuses it: strides that are no multiples of 16 bytes, boxes above 256. */
Result cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *sizes,
                              const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                              int swizzle, int promotion, int fill) {
    for (unsigned i = 0; i + 1 < rank; i++)
        if (strides[i] % 16) return refuse("cuTensorMapEncodeTiled", INVALID_VALUE);
    for (unsigned i = 0; i < rank; i++)
        if (!box[i] || box[i] > 256) return refuse("cuTensorMapEncodeTiled", INVALID_VALUE);
    return SUCCESS;
}
Result cuTensorMapEncodeIm2col(void) {
    return refuse("cuTensorMapEncodeIm2col", INVALID_VALUE);
}

/* --- errors ---------------------------------------------------------------------------------------------------- */

Result cuGetErrorName(Result error, const char **name) {
    switch (error) {
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_PTX: *name = "CUDA_ERROR_INVALID_PTX"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case LAUNCH_OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
        default: *name = "CUDA_ERROR_UNKNOWN"; break;
    }
    return SUCCESS;
}
Result cuGetErrorString(Result error, const char **text) {
    return cuGetErrorName(error, text);
}
Result cuGetExportTable(const void **table, const void *id) {
    *table = 0;
    return NOT_FOUND;
}
/* Events of a context, which programs look for by name (from CUDA 12.5 on). */
static Result record_context(void *context, void *event) {
    ALIVE("cuCtxRecordEvent");
    note("E record context");
    recorded(event, NULL);
    return SUCCESS;
}
static Result hold_context(void *context, void *event) {
    ALIVE("cuCtxWaitEvent");
    note("E hold context");
    landed(((Event *)event)->stream, ((Event *)event)->last);
    return SUCCESS;
}
Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, void *status) {
    *function = 0;
    if (version <= options.driver && !strcmp(name, "cuCtxRecordEvent")) *function = (void *)record_context;
    if (version <= options.driver && !strcmp(name, "cuCtxWaitEvent")) *function = (void *)hold_context;
    return *function ? SUCCESS : NOT_FOUND;
}

/* For the stand-in for NCCL. */
void standin_note(const char *text) {
    note("%s", text);
}

/* A stand-in for NVRTC (libnvrtc): it compiles nothing, and answers with a text that the stand-in driver loads.
 *
 * STANDIN_NVRTC_LOG=FILE      a line per compiled kernel, its name, is appended
 * STANDIN_NVRTC_SOURCES=DIR   the sources are kept there, one file per kernel
 * STANDIN_FAIL_COMPILE=N      the N-th program (from 1) does not compile
 *
 * With the real NVRTC in its place kernels are really compiled (docs/gpu.md).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char name[200];
    char parameters[70]; /* a letter for each: p for memory, v for a value */
    char log[300];
} Program;

enum { SUCCESS = 0, COMPILATION = 6, PTX = 400 };

static int programs;

/* The name of the kernel in `source`: what stands before the parenthesis after `__global__ void`, attributes with
 * parentheses of their own left out. */
static void kernel_name(const char *source, char *name, size_t room) {
    snprintf(name, room, "kernel");
    const char *at = strstr(source, "__global__");
    if (!at) return;
    at += strlen("__global__");
    while (*at) {
        at += strspn(at, " \n\t");
        size_t length = strcspn(at, " \n\t(");
        const char *after = at + length;
        after += strspn(after, " \n\t");
        int is_void = length == 4 && !strncmp(at, "void", 4);
        int is_attribute = length > 2 && !strncmp(at, "__", 2);
        if (*after == '(' && is_attribute) {
            const char *close = strchr(after, ')');
            if (!close) return;
            at = close + 1;
        } else if (*after == '(') {
            snprintf(name, room, "%.*s", (int)length, at);
            return;
        } else if (length || is_void) {
            at += length;
        } else {
            return;
        }
    }
}

/* What the kernel `name` of `source` takes. */
static void kernel_parameters(const char *source, const char *name, char *letters, size_t room) {
    size_t count = 0;
    const char *at = strstr(source, "__global__");
    at = at ? strstr(at, name) : NULL;
    at = at ? strchr(at, '(') : NULL;
    const char *end = at ? strchr(at, ')') : NULL;
    for (at = at ? at + 1 : NULL; at && end && at < end && count + 1 < room;) {
        size_t length = strcspn(at, ",)");
        letters[count++] = memchr(at, '*', length) ? 'p' : 'v';
        at += length + 1;
    }
    letters[count] = 0;
}

int nvrtcVersion(int *major, int *minor) {
    *major = 13;
    *minor = 0;
    return SUCCESS;
}

int nvrtcCreateProgram(Program **program, const char *source, const char *name, int headers, const char *const *texts,
                       const char *const *names) {
    *program = calloc(1, sizeof(Program));
    kernel_name(source, (*program)->name, sizeof(*program)->name);
    kernel_parameters(source, (*program)->name, (*program)->parameters, sizeof(*program)->parameters);
    const char *folder = getenv("STANDIN_NVRTC_SOURCES");
    if (folder && *folder) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%05d-%s.cu", folder, programs + 1, (*program)->name);
        FILE *file = fopen(path, "w");
        if (file) {
            fputs(source, file);
            fclose(file);
        }
    }
    return SUCCESS;
}

int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    int number = __sync_add_and_fetch(&programs, 1);
    const char *fail = getenv("STANDIN_FAIL_COMPILE"), *log = getenv("STANDIN_NVRTC_LOG");
    if (fail && *fail && atoi(fail) == number) {
        snprintf(program->log, sizeof program->log, "default_program(1): error: %s does not compile, as was asked for",
                 program->name);
        return COMPILATION;
    }
    FILE *file = log && *log ? fopen(log, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", program->name);
        fclose(file);
    }
    return SUCCESS;
}

static void ptx(const Program *program, char *text, size_t room) {
    snprintf(text, room, "// of the stand-in: parameters %s\n.visible .entry %s(\n", program->parameters, program->name);
}

int nvrtcGetPTXSize(Program *program, size_t *size) {
    char text[PTX];
    ptx(program, text, sizeof text);
    *size = strlen(text) + 1;
    return SUCCESS;
}
int nvrtcGetPTX(Program *program, char *text) {
    ptx(program, text, PTX);
    return SUCCESS;
}
int nvrtcGetProgramLogSize(Program *program, size_t *size) {
    *size = strlen(program->log) + 1;
    return SUCCESS;
}
int nvrtcGetProgramLog(Program *program, char *text) {
    strcpy(text, program->log);
    return SUCCESS;
}
int nvrtcDestroyProgram(Program **program) {
    free(*program);
    *program = NULL;
    return SUCCESS;
}
const char *nvrtcGetErrorString(int error) {
    return error == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_SUCCESS";
}

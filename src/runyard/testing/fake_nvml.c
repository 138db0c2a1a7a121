/* A stand-in for NVIDIA's management library, for machines without a GPU.
 *
 * It answers what nvidia-ml-py asks, from a text file named `gpus` beside the shared object, read afresh at each call:
 * one line per GPU, words separated by blanks:
 *
 *   uuid=GPU-1 name=Fake total=40960 used=10 procs=123:500,124:na graphics=9:20 mig=2 error=15 hang=5
 *
 * Sizes in MiB. `used=na` and `procs=na` make these readings unsupported; `pid:na` hides the memory of one process. With
 * `error` every call about that GPU fails with that number (15: the GPU is lost); with `lost_at_count` it cannot even be
 * addressed by index. `hang` makes every call about it take so many seconds. `mig=N`: MIG mode with N instances, which
 * are named MIG-<uuid>-<n>; `procs0=`, `used0=`, ... are their readings. A line `init=N` makes nvmlInit fail. `util=30`,
 * `memutil=20` (percent), `power=125000` (milliwatts) and `temp=60` (degrees) are readings that a GPU without these words,
 * and a MIG instance, has not.
 *
 * Names, numbers and layouts: NVIDIA's NVML API reference (nvml.h), as far as the binding uses them.
 *
 * Build: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fake_nvml.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, UNKNOWN = 999 };
enum { MAX_GPUS = 32, MAX_LINE = 4096, MAX_MIG = 8 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_t;

static char lines[MAX_GPUS][MAX_LINE];
static int count, init_error, ready;

static int read_state(void)
{
    Dl_info info;
    char path[MAX_LINE], line[MAX_LINE];
    count = init_error = 0;
    if (!dladdr((void *)read_state, &info) || strlen(info.dli_fname) > sizeof path - 8)
        return UNKNOWN;
    strcpy(path, info.dli_fname);
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, "gpus");
    FILE *file = fopen(path, "r");
    if (!file)
        return UNKNOWN;
    while (count < MAX_GPUS && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "init=", 5))
            init_error = atoi(line + 5);
        else if (line[0])
            strcpy(lines[count++], line);
    }
    fclose(file);
    return OK;
}

/* Copy the value of a word of a GPU's line; 0 when it is not there. */
static int word(int gpu, const char *name, char *value, size_t size)
{
    size_t length = strlen(name);
    for (char *at = lines[gpu]; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
        if (!strncmp(at, name, length) && at[length] == '=') {
            size_t end = strcspn(at + length + 1, " ");
            if (end >= size)
                end = size - 1;
            memcpy(value, at + length + 1, end);
            value[end] = 0;
            return 1;
        }
    }
    return 0;
}

static long number(int gpu, const char *name, long otherwise)
{
    char value[64];
    return word(gpu, name, value, sizeof value) ? atol(value) : otherwise;
}

/* A handle is 1 + 16 * GPU, plus 1 + instance for a MIG instance. */
static void *handle_of(int gpu, int instance) { return (void *)(long)(1 + 16 * gpu + (instance < 0 ? 0 : 1 + instance)); }
static int gpu_of(void *handle) { return (int)(((long)handle - 1) / 16); }
static int instance_of(void *handle) { return (int)(((long)handle - 1) % 16) - 1; }

static int look(void *handle)
{
    if (!ready)
        return UNINITIALIZED;
    int result = read_state();
    if (result != OK)
        return result;
    if (init_error) {
        ready = 0;
        return UNINITIALIZED;
    }
    if (!handle || gpu_of(handle) >= count)
        return INVALID;
    if (number(gpu_of(handle), "hang", 0))
        sleep((unsigned)number(gpu_of(handle), "hang", 0));
    return (int)number(gpu_of(handle), "error", OK);
}

/* The name of a reading: of the GPU, or of one of its MIG instances. */
static const char *reading(void *handle, const char *name, char *buffer)
{
    if (instance_of(handle) >= 0)
        sprintf(buffer, "%s%d", name, instance_of(handle));
    else
        strcpy(buffer, name);
    return buffer;
}

static void uuid_of(void *handle, char *value, size_t size)
{
    char own[128] = "GPU-?";
    word(gpu_of(handle), "uuid", own, sizeof own);
    if (instance_of(handle) >= 0)
        snprintf(value, size, "MIG-%s-%d", own, instance_of(handle));
    else
        snprintf(value, size, "%s", own);
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int result = read_state();
    if (result == OK)
        result = init_error;
    ready = result == OK;
    return result;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { ready = 0; return OK; }
const char *nvmlErrorString(int result) { (void)result; return "an error of the fake library"; }

static int text(char *to, unsigned size, const char *value)
{
    if (strlen(value) >= size)
        return TOO_SMALL;
    strcpy(to, value);
    return OK;
}
int nvmlSystemGetDriverVersion(char *version, unsigned size) { return text(version, size, "999.0"); }

int nvmlDeviceGetCount_v2(unsigned *result)
{
    if (!ready)
        return UNINITIALIZED;
    int status = read_state();
    if (status == OK && init_error) {
        ready = 0;
        return UNINITIALIZED;
    }
    *result = (unsigned)count;
    return status;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    if (!ready)
        return UNINITIALIZED;
    int status = read_state();
    if (status != OK)
        return status;
    if ((int)index >= count)
        return INVALID;
    *handle = handle_of((int)index, -1);
    return (int)number((int)index, "lost_at_count", OK);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle)
{
    if (!ready)
        return UNINITIALIZED;
    int status = read_state();
    for (int gpu = 0; status == OK && gpu < count; gpu++) {
        for (int instance = -1; instance < number(gpu, "mig", 0); instance++) {
            char value[160];
            uuid_of(handle_of(gpu, instance), value, sizeof value);
            if (!strcmp(value, uuid)) {
                *handle = handle_of(gpu, instance);
                return look(*handle);
            }
        }
    }
    return status == OK ? NOT_FOUND : status;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size)
{
    char value[160];
    int status = look(handle);
    if (status != OK)
        return status;
    uuid_of(handle, value, sizeof value);
    return text(uuid, size, value);
}

int nvmlDeviceGetName(void *handle, char *name, unsigned size)
{
    char value[96] = "Fake GPU";
    int status = look(handle);
    if (status != OK)
        return status;
    word(gpu_of(handle), "name", value, sizeof value);
    return text(name, size, value);
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending)
{
    int status = look(handle);
    if (status != OK)
        return status;
    if (number(gpu_of(handle), "mig", -1) < 0)
        return UNSUPPORTED;
    *current = *pending = 1;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *result)
{
    *result = MAX_MIG;
    return look(handle);
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance)
{
    int status = look(handle);
    if (status != OK)
        return status;
    if ((long)index >= number(gpu_of(handle), "mig", 0))
        return NOT_FOUND;
    *instance = handle_of(gpu_of(handle), (int)index);
    return OK;
}

static int memory(void *handle, unsigned long long *total, unsigned long long *used)
{
    char value[64], name[16];
    int status = look(handle);
    if (status != OK)
        return status;
    *total = (unsigned long long)number(gpu_of(handle), "total", 40960) << 20;
    *used = 0;
    if (word(gpu_of(handle), reading(handle, "used", name), value, sizeof value)) {
        if (!strcmp(value, "na"))
            return UNSUPPORTED;
        *used = strtoull(value, NULL, 10) << 20;
    }
    return OK;
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *result)
{
    int status = memory(handle, &result->total, &result->used);
    if (status == OK)
        result->free = result->total - result->used;
    return status;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2_t *result)
{
    int status = memory(handle, &result->total, &result->used);
    result->reserved = 0;
    if (status == OK)
        result->free = result->total - result->used;
    return status;
}

static int processes(void *handle, const char *kind, unsigned *size, process_t *list)
{
    char value[MAX_LINE] = "", name[16];
    unsigned found = 0;
    int status = look(handle);
    if (status != OK)
        return status;
    word(gpu_of(handle), reading(handle, kind, name), value, sizeof value);
    if (!strcmp(value, "na"))
        return UNSUPPORTED;
    for (char *at = strtok(value, ","); at; at = strtok(NULL, ",")) {
        char *colon = strchr(at, ':');
        if (list && found < *size) {
            list[found].pid = (unsigned)atol(at);
            list[found].used = colon && strcmp(colon + 1, "na") ? strtoull(colon + 1, NULL, 10) << 20 : ~0ULL;
            list[found].gpu_instance = list[found].compute_instance = ~0U;
        }
        found++;
    }
    status = found > *size || (found && !list) ? TOO_SMALL : OK;
    *size = found;
    return status;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *size, process_t *list)
{
    return processes(handle, "procs", size, list);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *size, process_t *list)
{
    return processes(handle, "graphics", size, list);
}
int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *handle, unsigned *size, process_t *list)
{
    return processes(handle, "mps", size, list);
}

/* A reading that only some GPUs offer. */
static int offered(void *handle, const char *name, unsigned *value)
{
    int status = look(handle);
    if (status != OK)
        return status;
    long found = instance_of(handle) >= 0 ? -1 : number(gpu_of(handle), name, -1);
    *value = (unsigned)found;
    return found < 0 ? UNSUPPORTED : OK;
}
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *rates)
{
    int status = offered(handle, "util", &rates[0]);
    return status == OK ? offered(handle, "memutil", &rates[1]) : status;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { return offered(handle, "power", milliwatts); }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees)
{
    return sensor ? INVALID : offered(handle, "temp", degrees);
}

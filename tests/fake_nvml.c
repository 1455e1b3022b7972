/* A libnvidia-ml.so.1 that says what the environment tells it to say:
 *   FAKE_GPUS    "Tesla T4=7.5,NVIDIA H100=9.0"
 *   FAKE_DRIVER  "580.65.06"     FAKE_CUDA "13000"
 *   FAKE_INIT    the error that nvmlInit returns (9: driver not loaded)
 *   FAKE_COUNT   the error that counting returns (15: GPU is lost)
 *   FAKE_HANG    "init" or "count": that call never returns
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *said(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

static int answer(const char *stage, const char *error) {
    if (!strcmp(said("FAKE_HANG", ""), stage))
        for (;;) sleep(1000);
    return atoi(said(error, "0"));
}

/* Copies the description of one GPU; returns how many there are in all. */
static int gpu(int wanted, char *name, int *major, int *minor) {
    char list[1024];
    int count = 0;
    snprintf(list, sizeof list, "%s", said("FAKE_GPUS", ""));
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ","), count++)
        if (count == wanted) sscanf(word, "%95[^=]=%d.%d", name, major, minor);
    return count;
}

int nvmlInit_v2(void) { return answer("init", "FAKE_INIT"); }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "GPU is lost"; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "%s", said("FAKE_DRIVER", "580.65.06"));
    return 0;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = atoi(said("FAKE_CUDA", "13000"));
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char name[96];
    int major, minor;
    *count = gpu(-1, name, &major, &minor);
    return answer("count", "FAKE_COUNT");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(long)(index + 1);
    return 0;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    char name[96] = "";
    int major, minor;
    gpu((long)handle - 1, name, &major, &minor);
    snprintf(text, size, "%s", name);
    return 0;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    char name[96];
    gpu((long)handle - 1, name, major, minor);
    return 0;
}

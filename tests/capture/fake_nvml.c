/* A libnvidia-ml.so.1 with one GPU, as nvml.h declares its functions. Codes: 3 not supported, 4 no permission. */
#include <string.h>

typedef struct { char legacy[16]; unsigned domain, bus, device, pci, subsystem; char id[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
static int the_gpu;
#define TEXT(name, value) int name(void *gpu, char *out, unsigned size) { strncpy(out, value, size); return 0; }
#define NUMBER(name, value) int name(void *gpu, unsigned *out) { *out = value; return 0; }

int nvmlInitWithFlags(unsigned flags) { return 0; }
const char *nvmlErrorString(int code) { return "some error"; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { strncpy(out, "580.1", size); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) { *out = &the_gpu; return 0; }
TEXT(nvmlDeviceGetName, "Fake H100")
TEXT(nvmlDeviceGetUUID, "GPU-abc")
TEXT(nvmlDeviceGetVbiosVersion, "96.1")
int nvmlDeviceGetPciInfo_v3(void *gpu, pci_t *out) {
    memset(out, 0, sizeof *out);
    strcpy(out->id, "00000000:1B:00.0");
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory_t *out) { out->total = 80ULL << 30; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) { *major = 9; *minor = 0; return 0; }
NUMBER(nvmlDeviceGetNumGpuCores, 16896)
int nvmlDeviceGetEccMode(void *gpu, unsigned *now, unsigned *next) { *now = *next = 0; return 0; }
int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *next) { *now = *next = 0; return 0; }
NUMBER(nvmlDeviceGetEnforcedPowerLimit, 350000)
int nvmlDeviceGetPowerManagementDefaultLimit(void *gpu, unsigned *out) { return 4; }
int nvmlDeviceGetMaxClockInfo(void *gpu, unsigned kind, unsigned *out) { *out = kind == 1 ? 1755 : 2619; return 0; }
int nvmlDeviceGetApplicationsClock(void *gpu, unsigned kind, unsigned *out) { return 3; }
NUMBER(nvmlDeviceGetPersistenceMode, 1)
NUMBER(nvmlDeviceGetComputeMode, 0)

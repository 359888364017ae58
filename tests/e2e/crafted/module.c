// A module as nobody's tools make it: by hand, and with what the macros ABI_VERSION, THREAD_LOCAL, ENTRY and WORK say. Its function `crafted` answers with one byte.
#include <stddef.h>
#include <stdint.h>

struct call {
    const uint8_t *body;
    size_t body_len;
    const uint8_t *meta;
    size_t meta_len;
    uint8_t *out;
    size_t out_capacity, out_body_len, out_meta_len;
    uint64_t deadline_ns, flags;
};

struct function {
    const char *name;
    size_t name_len;
    uint32_t (*init)(void);
    uint32_t (*call)(struct call *);
};

struct module {
    uint64_t magic;
    uint32_t abi_version, function_count;
    const struct function *functions;
    void (*attach)(void *runtime);
};

__attribute__((section(".note.microfaas"), used, aligned(4))) static const struct {
    uint32_t owner_len, descriptor_len, type;
    char owner[12];
    uint32_t abi_version, function_count, name_len;
    char name[8];
} note = {10, 20, 1, "microfaas", ABI_VERSION, 1, 7, "crafted"};

THREAD_LOCAL

__attribute__((unused)) static uint32_t work(struct call *call) {
    call->out[0] = WORK;
    call->out_body_len = 1;
    return 0;
}

static void attach(void *runtime) { (void)runtime; }

static const struct function functions[] = {{"crafted", 7, NULL, ENTRY}};

const struct module microfaas_module = {0x646f6d736161666d, ABI_VERSION, 1, functions, attach};

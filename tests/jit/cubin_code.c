/* See cubin_code.h. A cubin is an ELF file with one section `.text.NAME` a kernel. */
#include <elf.h>
#include <stdbool.h>
#include <string.h>

#include "cubin_code.h"

enum { INSTRUCTION_BYTES = 16 };

/* The i-th section's header, copied: an image's start need not be aligned. */
static bool section(const char *image, size_t bytes, const Elf64_Ehdr *h, size_t i, Elf64_Shdr *out)
{
    if (h->e_shentsize != sizeof *out || h->e_shoff > bytes || i >= (bytes - h->e_shoff) / sizeof *out) return false;
    memcpy(out, image + h->e_shoff + i * sizeof *out, sizeof *out);
    return true;
}

long mj_cubin_instructions(const void *image, size_t bytes)
{
    static const char text[] = ".text.";
    Elf64_Ehdr h;
    Elf64_Shdr names, s;
    long n = 0;
    if (bytes < sizeof h) return 0;
    memcpy(&h, image, sizeof h);
    if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64) return 0;
    if (!section(image, bytes, &h, h.e_shstrndx, &names) || names.sh_offset > bytes || names.sh_size > bytes - names.sh_offset) return 0;
    for (size_t i = 0; i < h.e_shnum; i++) {
        if (!section(image, bytes, &h, i, &s) || s.sh_name + sizeof text > names.sh_size) continue;
        if (memcmp((const char *)image + names.sh_offset + s.sh_name, text, sizeof text - 1) == 0)
            n += (long)(s.sh_size / INSTRUCTION_BYTES);
    }
    return n;
}

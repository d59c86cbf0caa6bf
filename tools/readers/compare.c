/* Compares one tensor of a raw golden pack with a file of your own: cc -O2 compare.c -lm && ./a.out RAW NAME MINE.bin */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double number(const char *dtype, const unsigned char *at) {
    double f64; float f32; unsigned bits; long long i64; int i32;
    if (!strcmp(dtype, "f64")) return memcpy(&f64, at, 8), f64;
    if (!strcmp(dtype, "f32")) return memcpy(&f32, at, 4), f32;
    if (!strcmp(dtype, "bf16")) return bits = (unsigned)(at[0] | at[1] << 8) << 16, memcpy(&f32, &bits, 4), f32;
    if (!strcmp(dtype, "i64")) return memcpy(&i64, at, 8), (double)i64;
    return !strcmp(dtype, "i32") ? memcpy(&i32, at, 4), i32 : *at; /* or bool */
}

int main(int argc, char **argv) {
    char path[4096], line[4096], name[1024], dtype[8], file[256];
    if (argc != 4) return fprintf(stderr, "usage: %s RAW NAME MINE.bin\n", argv[0]), 1;
    snprintf(path, sizeof path, "%s/list.txt", argv[1]);
    FILE *list = fopen(path, "r");
    if (!list) return perror(path), 2;
    for (*name = 0; strcmp(name, argv[2]);) {
        if (!fgets(line, sizeof line, list)) return fprintf(stderr, "%s: no tensor %s\n", path, argv[2]), 1;
        if (sscanf(line, "%1023s %7s %255s", name, dtype, file) != 3) return fprintf(stderr, "%s: %s", path, line), 2;
    }
    size_t bytes = strstr(dtype, "64") ? 8 : strstr(dtype, "32") ? 4 : strstr(dtype, "16") ? 2 : 1;
    snprintf(path, sizeof path, "%s/%s", argv[1], file);
    FILE *golden = fopen(path, "rb"), *mine = fopen(argv[3], "rb");
    if (!golden || !mine) return perror(golden ? argv[3] : path), 2;
    unsigned char g[8], m[8]; size_t n = 0, differ = 0, worst = 0;
    double gap = 0, a = 0, b = 0;
    for (; fread(g, bytes, 1, golden); n++) {
        if (!fread(m, bytes, 1, mine)) return fprintf(stderr, "%s: ends after %zu numbers\n", argv[3], n), 2;
        double x = number(dtype, m), y = number(dtype, g), d = x == y ? 0 : isfinite(x - y) ? fabs(x - y) : INFINITY;
        if (d > 0) differ++;
        if (d > gap) gap = d, worst = n, a = x, b = y;
    }
    printf("%s: %zu of %zu differ; worst at %zu: yours %.9g, golden %.9g\n", argv[2], differ, n, worst, a, b);
    return differ ? 3 : 0;
}

/* Runs the kernels of several libraries side by side: harness ROUNDS LIBRARY... Prints "kernel library ticks" rows, the best of
   all rounds. Every result is compared with known answers and with the first library's. Exit status 1: a result is wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

enum { LIBRARIES = 16, BYTES = 65536, WORDS = BYTES / 8 };
static uint64_t area[6][WORDS] __attribute__((aligned(4096)));
static uint64_t source[WORDS] __attribute__((aligned(4096)));
static uint64_t seed;

static uint64_t next_random(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return seed; }
static uint64_t digest(const void *p, size_t size) {
    const uint8_t *b = p;
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < size; i++) h = (h ^ b[i]) * 0x100000001b3ull;
    return h;
}
static uint8_t *bytes(int n) { return (uint8_t *)area[n]; }
static void same(int holds, const char *what) {
    if (!holds) { fprintf(stderr, "wrong: %s\n", what); exit(1); }
}

/* Each kernel: `prepare` before and `result` after each run, neither timed; `known` checks what is known without a compiler. */
struct kernel { const char *symbol, *name; void (*prepare)(void); uint64_t (*run)(void *); uint64_t (*result)(void); void (*known)(void *); };
#define CALL(type, ...) ((type)f)(__VA_ARGS__)
static void nothing_known(void *f) { (void)f; }
static uint64_t all_of_0(void) { return digest(area[0], sizeof area[0]); }
static uint64_t nothing_more(void) { return 0; }

typedef void sha_t(uint32_t *, const uint8_t *, size_t);
static void prepare_bytes(void) { memset(area[0], 0, BYTES); for (int i = 0; i < BYTES; i++) bytes(1)[i] = (uint8_t)((uint32_t)i * 2654435761u >> 13); }
static uint64_t run_sha(void *f) { CALL(sha_t *, (uint32_t *)area[0], bytes(1), 64); return 0; }
static void known_sha(void *f) {
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t m[64] = {'a', 'b', 'c', 0x80};
    m[63] = 24;
    CALL(sha_t *, h, m, 1);
    same(h[0] == 0xba7816bf && h[7] == 0xf20015ad, "sha256_compress of abc");
}

typedef uint32_t crc_t(uint32_t, const uint8_t *, size_t);
static uint64_t run_crc(void *f) { return CALL(crc_t *, 0, bytes(1), 4096); }
static void known_crc(void *f) { same(CALL(crc_t *, 0, (const uint8_t *)"123456789", 9) == 0xcbf43926, "crc32_tab of 123456789"); }

typedef void mcopy_t(uint64_t *, const uint64_t *, size_t);
static uint64_t run_mcopy(void *f) { CALL(mcopy_t *, area[0], area[1], 512); CALL(mcopy_t *, area[0] + 600, area[1], 512); return 0; }
typedef int mcmp_t(const uint64_t *, const uint64_t *, size_t);
static void prepare_mcmp(void) { prepare_bytes(); memcpy(area[0], area[1], 4096); }
static uint64_t run_mcmp(void *f) { return (uint32_t)CALL(mcmp_t *, area[0], area[1], 512); }
static void known_mcmp(void *f) {
    uint64_t a[2] = {1, 2}, b[2] = {1, 3};
    same(CALL(mcmp_t *, a, b, 2) == -1 && CALL(mcmp_t *, b, a, 2) == 1 && CALL(mcmp_t *, a, b, 1) == 0, "mcmp");
}
typedef void bcopyb_t(uint8_t *, const uint8_t *, size_t);
static uint64_t run_bcopyb(void *f) { CALL(bcopyb_t *, bytes(0), bytes(1), 4096); return 0; }

typedef void fe_t(uint64_t *, const uint64_t *, const uint64_t *);
static void prepare_fe(void) {
    static const uint64_t a[4] = {0x123456789abcdef1, 0xfedcba9876543210, 0x0f1e2d3c4b5a6978, 0x1122334455667788}, b[4] = {7, 11, 13, 0x7766554433221100};
    memset(area[0], 0, BYTES); memcpy(area[0], a, 32); memcpy(area[1], b, 32);
}
static uint64_t run_fe(void *f) { for (int i = 0; i < 100; i++) CALL(fe_t *, area[0], area[0], area[1]); return 0; }
static void known_fe(void *f) {
    static const uint64_t limit[4] = {0xffffffffffffffed, ~0ull, ~0ull, 0x7fffffffffffffff}, least[4] = {0xffffffffffffffec, ~0ull, ~0ull, 0x7fffffffffffffff};
    uint64_t z[4];
    CALL(fe_t *, z, least, least); /* (-1) * (-1), up to multiples of the modulus */
    while (z[3] >> 63 || (z[3] == limit[3] && z[2] == ~0ull && z[1] == ~0ull && z[0] >= limit[0])) {
        unsigned __int128 borrow = 0;
        for (int i = 0; i < 4; i++) { unsigned __int128 d = (unsigned __int128)z[i] - limit[i] - borrow; z[i] = (uint64_t)d; borrow = d >> 64 & 1; }
    }
    same(z[0] == 1 && !z[1] && !z[2] && !z[3], "fe_mul of minus one with itself");
}

typedef uint64_t ept_t(const uint8_t *, uint64_t, uint64_t);
static uint8_t arena[40 * 4096] __attribute__((aligned(4096)));
static void prepare_ept(void) {
    uint64_t *a = (uint64_t *)arena;
    a[0] = 1 * 4096 | 7; a[512] = 2 * 4096 | 7;
    for (int i = 0; i < 32; i++) {
        a[1024 + i] = (uint64_t)(3 + i) * 4096 | 7;
        for (int j = 0; j < 512; j++) a[512 * (3 + i) + j] = (uint64_t)(i * 512 + j) * 4096 | 0x37;
    }
    seed = 88172645463325252ull;
    for (int i = 0; i < 1000; i++) source[i] = next_random() & 0x3ffffff;
}
static uint64_t run_ept(void *f) { uint64_t v = 0; for (int i = 0; i < 1000; i++) v = CALL(ept_t *, arena, 0, source[i] ^ (v & 0x1000)); return v; }
static void known_ept(void *f) { for (int i = 0; i < 1000; i++) same(CALL(ept_t *, arena, 0, source[i]) == source[i], "ept_walk"); }

typedef void dispatch_t(void *, uint32_t, uint64_t);
static void prepare_dispatch(void) {
    static const uint8_t reasons[16] = {10, 12, 30, 30, 31, 32, 48, 28, 1, 7, 10, 30, 40, 54, 55, 14};
    memset(area[0], 0, BYTES); seed = 88172645463325252ull;
    for (int i = 0; i < 1000; i++) { source[i] = reasons[next_random() >> 60]; source[1000 + i] = next_random() & 0xf00000fff; }
}
static uint64_t run_dispatch(void *f) { for (int i = 0; i < 1000; i++) CALL(dispatch_t *, area[0], (uint32_t)source[i], source[1000 + i]); return 0; }
static void known_dispatch(void *f) { /* every reason once, against the first library */
    static uint64_t first; static int seen; memset(area[0], 0, BYTES);
    for (uint64_t n = 0; n < 640; n++) CALL(dispatch_t *, area[0], (uint32_t)(n % 80), n * 0x9E3779B97F4A7C15ull >> 20);
    if (!seen) { seen = 1; first = all_of_0(); }
    same(first == all_of_0(), "dispatch of every reason");
}

typedef void sort_t(void *, size_t);
static void prepare_sort(void) { memset(area[0], 0, BYTES); seed = 7; for (int i = 0; i < 512; i++) area[0][i] = next_random(); }
static uint64_t run_heap(void *f) { CALL(sort_t *, area[0], 512); return 0; }
static uint64_t run_insertion(void *f) { CALL(sort_t *, area[0], 256); return 0; }
static void known_sort(void *f) { prepare_sort(); CALL(sort_t *, area[0], 512); for (int i = 1; i < 512; i++) same(area[0][i - 1] <= area[0][i], "heap_sort"); }
static void known_insertion(void *f) { uint32_t *w = (uint32_t *)area[0]; prepare_sort(); CALL(sort_t *, w, 256); for (int i = 1; i < 256; i++) same(w[i - 1] <= w[i], "insertion_sort"); }

struct node { struct node *next; uint64_t value; };
static struct node nodes[512], *head;
typedef uint64_t list_t(struct node **);
static void prepare_list(void) {
    static int order[512]; seed = 9;
    for (int i = 0; i < 512; i++) order[i] = i;
    for (int i = 511; i > 0; i--) { int j = (int)(next_random() % (uint64_t)(i + 1)), t = order[i]; order[i] = order[j]; order[j] = t; }
    for (int i = 0; i < 512; i++) { nodes[order[i]].value = next_random(); nodes[order[i]].next = i < 511 ? &nodes[order[i + 1]] : 0; }
    head = &nodes[order[0]];
}
static uint64_t run_list(void *f) { return CALL(list_t *, &head); }

struct branch { struct branch *left, *right; uint64_t key; };
static struct branch branches[512];
typedef uint64_t tree_t(struct branch *, const uint64_t *, size_t);
static void prepare_tree(void) {
    seed = 11;
    for (int i = 0; i < 512; i++) {
        branches[i] = (struct branch){0, 0, next_random() % 1024};
        struct branch **at = &branches[0].left;
        for (struct branch *b = branches; i > 0;) {
            at = branches[i].key < b->key ? &b->left : &b->right;
            if (!*at) { *at = &branches[i]; break; }
            b = *at;
        }
    }
    for (int i = 0; i < 512; i++) source[i] = next_random() % 1024;
}
static uint64_t run_tree(void *f) { return CALL(tree_t *, branches, source, 512); }

typedef uint64_t words_t(const uint64_t *, size_t);
static void prepare_words(void) { seed = 13; for (int i = 0; i < 1024; i++) area[1][i] = next_random(); }
static uint64_t run_bits(void *f) { return CALL(words_t *, area[1], 256); }

typedef uint64_t text_t(const uint8_t *, size_t);
static size_t text_size;
static void prepare_parser(void) {
    static const char marks[8] = "+-*;;+*-"; char *at = (char *)area[1]; seed = 17;
    for (int i = 0; i < 400; i++) {
        uint64_t v = next_random();
        at += sprintf(at, i % 3 ? "%lu %c " : "0x%lx%c", v >> (v & 63), marks[v >> 61]);
    }
    at += sprintf(at, "1;"); text_size = (size_t)(at - (char *)area[1]);
}
static uint64_t run_text(void *f) { return CALL(text_t *, bytes(1), text_size); }
static void known_parser(void *f) { same(CALL(text_t *, (const uint8_t *)"2*3+0x10 ;7", 11) == ((22ull * 31 + 7) ^ 12ull << 48), "parse_sums"); }
static void prepare_utf8(void) {
    static const char *const pieces[8] = {"a", "word ", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "plain text ", "\xed\x9f\xbf", "\xe0\xa0\x80"};
    char *at = (char *)area[1]; seed = 19;
    for (int i = 0; i < 1000; i++) at = stpcpy(at, pieces[next_random() >> 61]);
    text_size = (size_t)(at - (char *)area[1]);
}
static void known_utf8(void *f) {
    same(CALL(text_t *, (const uint8_t *)"a\xe2\x82\xac", 4) == 2 && CALL(text_t *, (const uint8_t *)"a\xe2\x82", 3) == ~0ull
         && CALL(text_t *, (const uint8_t *)"\xed\xa0\x80", 3) == ~0ull, "utf8_count");
}

typedef void big_t(uint64_t *, const uint64_t *, const uint64_t *, size_t);
typedef uint64_t add_t(uint64_t *, const uint64_t *, const uint64_t *, size_t);
static void prepare_big(void) { memset(area[0], 0, BYTES); prepare_words(); }
static uint64_t run_big(void *f) { CALL(big_t *, area[0], area[1], area[1] + 32, 16); return 0; }
static uint64_t run_add(void *f) { return CALL(add_t *, area[0], area[1], area[1] + 512, 512); }
static void known_add(void *f) {
    uint64_t a[3] = {~0ull, ~0ull, 5}, b[3] = {1, 0, 7}, r[3];
    same(CALL(add_t *, r, a, b, 3) == 0 && r[0] == 0 && r[1] == 0 && r[2] == 13 && CALL(add_t *, r, a, b, 2) == 1, "big_add");
}
static void known_big(void *f) {
    uint64_t a[2] = {~0ull, ~0ull}, r[4];
    CALL(big_t *, r, a, a, 2);
    same(r[0] == 1 && r[1] == 0 && r[2] == ~0ull - 1 && r[3] == ~0ull, "big_multiply");
}

typedef uint64_t search_t(const uint8_t *, size_t, const uint8_t *, size_t);
static void prepare_search(void) { seed = 23; for (int i = 0; i < 4096; i++) bytes(1)[i] = (uint8_t)("abcdefghijklmnop"[next_random() >> 60]); memcpy(bytes(1) + 4000, "needle", 6); }
static uint64_t run_search(void *f) { return CALL(search_t *, bytes(1), 4096, (const uint8_t *)"needle", 6) + 16 * CALL(search_t *, bytes(1), 4096, (const uint8_t *)"abc", 3); }
static void known_search(void *f) { same(CALL(search_t *, (const uint8_t *)"aabaabaa", 8, (const uint8_t *)"aa", 2) == 3, "search_count"); }

typedef void matrix_t(uint64_t *, const uint64_t *, const uint64_t *, size_t);
static uint64_t run_matrix(void *f) { CALL(matrix_t *, area[0], area[1], area[1] + 1024 - 576, 24); return 0; }
static void known_matrix(void *f) {
    uint64_t a[4] = {1, 2, 3, 4}, b[4] = {5, 6, 7, 8}, c[4];
    CALL(matrix_t *, c, a, b, 2);
    same(c[0] == 19 && c[1] == 22 && c[2] == 43 && c[3] == 50, "matrix_multiply");
}
typedef uint64_t sieve_t(uint8_t *, size_t);
static void prepare_nothing(void) { memset(area[0], 0, BYTES); }
static uint64_t run_sieve(void *f) { return CALL(sieve_t *, bytes(0), 8192); }
static void known_sieve(void *f) { same(CALL(sieve_t *, bytes(0), 8192) == 1028, "sieve"); }

typedef uint64_t table_t(uint64_t *, size_t, const uint64_t *, size_t);
static void prepare_table(void) { prepare_nothing(); seed = 29; for (int i = 0; i < 600; i++) source[i] = next_random() % 500 + 1; }
static uint64_t run_table(void *f) { return CALL(table_t *, area[0], 1024, source, 600); }

typedef uint64_t buffer_t(const uint8_t *, size_t, uint8_t *, size_t);
#define BUFFER(kernel, count) static uint64_t run_##kernel(void *f) { return CALL(buffer_t *, bytes(1), count, bytes(0), BYTES); }
#define KNOWN(kernel, holds) static void known_##kernel(void *f) { static uint8_t d[BYTES]; memset(d, 0, BYTES); same(holds, #kernel); }
static void prepare_random(void) { memset(area[0], 0, BYTES); seed = 31; for (int i = 0; i < WORDS; i++) area[1][i] = next_random(); }
static void prepare_letters(void) { prepare_random(); for (int i = 0; i < BYTES; i++) bytes(1)[i] = (uint8_t)("aaabbcde"[bytes(1)[i] & 7]); }
static size_t packed_size;
static void prepare_packed(void) { /* tokens, literals and distances into what was written */
    size_t i = 0, o = 0;
    prepare_random();
    while (o < 12000) {
        uint64_t r = next_random(), literals = r % 12 + (o == 0), copied = r >> 8 & 15, distance = 1 + (r >> 32) % (o + literals);
        bytes(1)[i++] = (uint8_t)(literals << 4 | copied);
        for (uint64_t k = 0; k < literals; k++) bytes(1)[i++] = (uint8_t)(r >> k);
        bytes(1)[i++] = (uint8_t)distance; bytes(1)[i++] = (uint8_t)(distance >> 8);
        o += literals + copied + 4;
        if (copied == 15) o += bytes(1)[i++] = (uint8_t)(r >> 20 & 63);
    }
    packed_size = i;
}
BUFFER(lz_expand, packed_size) BUFFER(base64_encode, 3000) BUFFER(edit_distance, 64) BUFFER(life_turn, 64) BUFFER(sip_rounds, 2048)
BUFFER(queens, 6) BUFFER(ring_buffer, 4096) BUFFER(decimal_text, 300) BUFFER(collatz, 300) BUFFER(box_blur, 40) BUFFER(filter_words, 500)
static uint64_t run_byte_machine(void *f) { return CALL(buffer_t *, bytes(1), 1000, bytes(0), 3000); }
#define OF(text, count) CALL(buffer_t *, (const uint8_t *)(text), count, d, BYTES)
KNOWN(lz_expand, OF("\x31" "abc\x02\x00\x10!", 8) == 9 && !memcmp(d, "abcbcbcb!", 9))
KNOWN(base64_encode, OF("Many hands", 10) == 12 && !memcmp(d, "TWFueSBoYW5k", 12))
KNOWN(edit_distance, OF("kittensitten", 6) == 1)
KNOWN(life_turn, OF("\0\0\0\0\0" "\0\0\1\0\0" "\0\0\1\0\0" "\0\0\1\0\0" "\0\0\0\0\0", 5) == 3 && d[11] && d[12] && d[13])
KNOWN(queens, OF("", 8) == 92)
KNOWN(decimal_text, OF("\xff\xff\xff\xff\0\0\0\0", 2) == 13 && !memcmp(d, "4294967295 0 ", 13))
KNOWN(collatz, OF("", 28) == 111)
KNOWN(box_blur, OF("\x01\x02\x03\x04\x05\x06\x07\x08\x09", 3) == 5)
static void prepare_rows(void) { prepare_random(); for (uint64_t i = 0; i < 1024; i++) { area[0][2 * i] = i * 61; area[0][2 * i + 1] = i; } }
static void prepare_tokens(void) {
    static const char *const pieces[8] = {"word ", "x1 ", "123 ", "\"a \\\" string\" ", "# comment\n", " + ", "{[abc]} ", "[\"k\", {42}] "};
    char *at = (char *)area[1]; memset(area[0], 0, BYTES); seed = 37;
    while (at < (char *)area[1] + 4000) at = stpcpy(at, pieces[next_random() >> 61]);
}
BUFFER(row_search, 256) BUFFER(token_states, 4000) BUFFER(knapsack, 40)
KNOWN(row_search, (memcpy(d, (uint64_t[]){5, 77}, 16), memset(d + 16, 0xff, 16368), OF("\5\0\0\0\0\0\0\0", 1) == 77))
KNOWN(token_states, OF("a 1 \"\\\"b\" #c", 13) == 0x0001000100010001)
KNOWN(knapsack, OF("\x7f\x05\x7f\x06\xff\x0a", 3) == 11)
static void prepare_steps(void) { prepare_random(); memcpy(area[0], (uint64_t[]){1, 2, 3, 4}, 32); }
BUFFER(stream_cipher, 2000) BUFFER(word_generator, 1000) BUFFER(letter_tree, 500)
static const uint32_t chacha[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, 0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c,
    0x13121110, 0x17161514, 0x1b1a1918, 0x1f1e1d1c, 1, 0x09000000, 0x4a000000, 0}; /* RFC 8439, 2.3.2 */
KNOWN(stream_cipher, (memcpy(bytes(1), chacha, 64), memset(bytes(1) + 64, 0, 64), OF(bytes(1), 128) == 2 && !memcmp(d, "\x10\xf1\xe7\xe4", 4)))
KNOWN(word_generator, (memcpy(d, (uint64_t[]){1, 2, 3, 4}, 32), OF("", 3) == 1509978240 && ((uint64_t *)d)[4] == 11520))
KNOWN(letter_tree, OF("abcdefabcdef", 12) == 37)

static const struct kernel kernels[] = {
    {"sha256_compress", "sha256", prepare_bytes, run_sha, all_of_0, known_sha},
    {"crc32_tab", "crc32", prepare_bytes, run_crc, nothing_more, known_crc},
    {"mcopy", "copy words", prepare_bytes, run_mcopy, all_of_0, nothing_known},
    {"mcmp", "compare words", prepare_mcmp, run_mcmp, nothing_more, known_mcmp},
    {"bcopyb", "copy bytes", prepare_bytes, run_bcopyb, all_of_0, nothing_known},
    {"fe_mul", "field multiply", prepare_fe, run_fe, all_of_0, known_fe},
    {"ept_walk", "EPT walk", prepare_ept, run_ept, nothing_more, known_ept},
    {"dispatch", "dispatch", prepare_dispatch, run_dispatch, all_of_0, known_dispatch},
    {"heap_sort", "heap sort", prepare_sort, run_heap, all_of_0, known_sort},
    {"insertion_sort", "insertion sort", prepare_sort, run_insertion, all_of_0, known_insertion},
    {"list_turn", "list", prepare_list, run_list, nothing_more, nothing_known},
    {"tree_find", "tree", prepare_tree, run_tree, nothing_more, nothing_known},
    {"bits_mix", "bits", prepare_words, run_bits, nothing_more, nothing_known},
    {"parse_sums", "parser", prepare_parser, run_text, nothing_more, known_parser},
    {"big_multiply", "bignum multiply", prepare_big, run_big, all_of_0, known_big},
    {"big_add", "bignum add", prepare_big, run_add, all_of_0, known_add},
    {"search_count", "string search", prepare_search, run_search, nothing_more, known_search},
    {"utf8_count", "UTF-8 states", prepare_utf8, run_text, nothing_more, known_utf8},
    {"matrix_multiply", "matrix", prepare_big, run_matrix, all_of_0, known_matrix},
    {"sieve", "sieve", prepare_nothing, run_sieve, all_of_0, known_sieve},
    {"table_insert", "hash table", prepare_table, run_table, all_of_0, nothing_known},
    {"lz_expand", "LZ expansion", prepare_packed, run_lz_expand, all_of_0, known_lz_expand},
    {"base64_encode", "base64", prepare_random, run_base64_encode, all_of_0, known_base64_encode},
    {"edit_distance", "edit distance", prepare_letters, run_edit_distance, all_of_0, known_edit_distance},
    {"life_turn", "life", prepare_random, run_life_turn, all_of_0, known_life_turn},
    {"sip_rounds", "SipHash", prepare_random, run_sip_rounds, nothing_more, nothing_known},
    {"queens", "queens", prepare_random, run_queens, nothing_more, known_queens},
    {"ring_buffer", "ring buffer", prepare_random, run_ring_buffer, all_of_0, nothing_known},
    {"decimal_text", "decimal", prepare_random, run_decimal_text, all_of_0, known_decimal_text},
    {"byte_machine", "byte machine", prepare_random, run_byte_machine, nothing_more, nothing_known},
    {"collatz", "Collatz", prepare_random, run_collatz, nothing_more, known_collatz},
    {"box_blur", "box blur", prepare_random, run_box_blur, all_of_0, known_box_blur},
    {"filter_words", "filter", prepare_random, run_filter_words, all_of_0, nothing_known},
    {"row_search", "row search", prepare_rows, run_row_search, nothing_more, known_row_search},
    {"token_states", "token states", prepare_tokens, run_token_states, nothing_more, known_token_states},
    {"knapsack", "knapsack", prepare_random, run_knapsack, all_of_0, known_knapsack},
    {"stream_cipher", "ChaCha20", prepare_random, run_stream_cipher, all_of_0, known_stream_cipher},
    {"word_generator", "xoshiro256", prepare_steps, run_word_generator, all_of_0, known_word_generator},
    {"letter_tree", "letter tree", prepare_random, run_letter_tree, all_of_0, known_letter_tree},
};
enum { KERNELS = sizeof kernels / sizeof *kernels };

static uint64_t ticks(void) { _mm_lfence(); uint64_t t = __rdtsc(); _mm_lfence(); return t; }

int main(int count, char **names) {
    static void *entries[KERNELS][LIBRARIES];
    static uint64_t best[KERNELS][LIBRARIES];
    int libraries = count - 2, rounds = atoi(names[1]);
    if (libraries < 1 || libraries > LIBRARIES) { fprintf(stderr, "harness: expected ROUNDS and 1 to %d libraries\n", LIBRARIES); return 2; }
    for (int l = 0; l < libraries; l++) {
        void *library = dlopen(names[l + 2], RTLD_NOW | RTLD_LOCAL);
        if (!library) { fprintf(stderr, "%s\n", dlerror()); return 2; }
        void (*start)(void) = (void (*)(void))dlsym(library, "crc_init");
        if (start) start();
        for (int k = 0; k < KERNELS; k++) {
            if (!(entries[k][l] = dlsym(library, kernels[k].symbol))) { fprintf(stderr, "%s: no %s\n", names[l + 2], kernels[k].symbol); return 2; }
            best[k][l] = ~0ull;
            kernels[k].prepare();
            kernels[k].known(entries[k][l]);
        }
    }
    for (int k = 0; k < KERNELS; k++) {
        uint64_t expected = 0;
        for (int r = 0; r < rounds; r++)
            for (int l = 0; l < libraries; l++) {
                uint64_t value = 0;
                for (int again = 0; again < 3; again++) { /* in a row, so that branches and caches are warm */
                    kernels[k].prepare();
                    uint64_t began = ticks();
                    value = kernels[k].run(entries[k][l]);
                    uint64_t took = ticks() - began;
                    if (took < best[k][l]) best[k][l] = took;
                }
                value = value * 31 + kernels[k].result();
                if (!r && !l) expected = value;
                if (value != expected) { fprintf(stderr, "wrong: %s of %s differs from %s's\n", kernels[k].symbol, names[l + 2], names[2]); return 1; }
            }
        for (int l = 0; l < libraries; l++) printf("%s\t%d\t%lu\n", kernels[k].name, l, best[k][l]);
    }
    return 0;
}

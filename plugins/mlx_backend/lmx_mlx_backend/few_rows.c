/* The three functions of a matrix library that MLX calls, passed on to OpenBLAS, but for products of
   few rows: attention of decoding steps, and all linear layers there. OpenBLAS copies the whole
   matrix for each of these, and its sums depend on how many rows and cells there are. Here a number
   is one sum in one order, whatever is beside it; reproducible answers need that. */

#include <string.h>

enum { BY_ROWS = 101, PLAIN = 111, TRANSPOSED = 112 };
enum { FEW_ROWS = 8, FEW_VECTORS = 2, CELLS = 64, WIDEST_HEAD = 256 };

int scipy_openblas_get_num_threads(void);
void scipy_cblas_sgemv(int, int, int, int, float, const float *, int, const float *, int,
                       float, float *, int);

static int least(int one, int other) { return one < other ? one : other; }

/* y = x B, in blocks of cells. */
static void values_of(int n, int k, float alpha, const float *b, int ldb, const float *x, float *y) {
  memset(y, 0, n * sizeof *y);
  for (int at = 0; at < k; at += CELLS)
    scipy_cblas_sgemv(BY_ROWS, TRANSPOSED, least(CELLS, k - at), n, alpha, b + (long)at * ldb, ldb,
                      x + at, 1, 1, y, 1);
}

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define FAST __attribute__((target("avx2,fma")))
enum { HIGH = 3, WIDE = 4, STEP = 8, WORTH_THREADS = 200000 };

/* A product C = A B^T of few rows. */
typedef struct {
  int m, n, k;
  float alpha;
  const float *a, *b;
  int lda, ldb;
  float *c;
  int ldc;
} Product;

static int has_fast(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

FAST static inline float whole(__m256 sums) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The numbers of some rows with WIDE columns. Each is one sum in the same order whatever is beside
   it, so a row's numbers do not depend on the others. */
FAST static inline __attribute__((always_inline)) void tile(const Product *p, const int rows,
                                                            int row, int column) {
  int some = least(WIDE, p->n - column), at = 0;
  const float *x = p->a + (long)row * p->lda, *w[WIDE];
  __m256 sums[HIGH][WIDE];
  for (int j = 0; j < WIDE; j++) w[j] = p->b + (long)(column + (j < some ? j : 0)) * p->ldb;
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < WIDE; j++) sums[r][j] = _mm256_setzero_ps();
  for (; at + STEP <= p->k; at += STEP)
    for (int j = 0; j < WIDE; j++) {
      __m256 weights = _mm256_loadu_ps(w[j] + at);
      for (int r = 0; r < rows; r++)
        sums[r][j] =
            _mm256_fmadd_ps(_mm256_loadu_ps(x + (long)r * p->lda + at), weights, sums[r][j]);
    }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < some; j++) {
      float sum = whole(sums[r][j]);
      for (int rest = at; rest < p->k; rest++)
        sum = __builtin_fmaf(x[(long)r * p->lda + rest], w[j][rest], sum);
      p->c[(long)(row + r) * p->ldc + column + j] = p->alpha * sum;
    }
}

FAST static void columns(const Product *p, int first, int end) {
  for (int column = first; column < end; column += WIDE) {
    int row = 0;
    for (; row + HIGH <= p->m; row += HIGH) tile(p, HIGH, row, column);
    if (p->m - row == 2) tile(p, 2, row, column);
    if (p->m - row == 1) tile(p, 1, row, column);
  }
}

static void by_tiles(const Product *p) {
#ifdef _OPENMP
  int threads = scipy_openblas_get_num_threads();
  if (threads > 1 && (long)p->n * p->k > WORTH_THREADS) {
#pragma omp parallel num_threads(threads)
    { /* there may be fewer than asked for */
      int part = (p->n / omp_get_num_threads() / WIDE + 1) * WIDE;
      int first = omp_get_thread_num() * part;
      columns(p, first, least(first + part, p->n));
    }
    return;
  }
#endif
  columns(p, 0, p->n);
}

#endif

/* Compute C = A B or A B^T and return 1, or 0 where OpenBLAS is to do it. */
static int few_rows(int tb, int m, int n, int k, float alpha, const float *a, int lda,
                    const float *b, int ldb, float *c, int ldc) {
#ifdef FAST
  if (tb == TRANSPOSED && has_fast()) {
    Product product = {m, n, k, alpha, a, b, lda, ldb, c, ldc};
    by_tiles(&product);
    return 1;
  }
#endif
  if (m > FEW_VECTORS) return 0;
  int some = k <= WIDEST_HEAD ? CELLS : n;
  for (int row = 0; row < m; row++) {
    const float *x = a + (long)row * lda;
    float *y = c + (long)row * ldc;
    if (tb == PLAIN) values_of(n, k, alpha, b, ldb, x, y);
    else
      for (int at = 0; at < n; at += some)
        scipy_cblas_sgemv(BY_ROWS, PLAIN, least(some, n - at), k, alpha, b + (long)at * ldb, ldb,
                          x, 1, 0, y + at, 1);
  }
  return 1;
}

#define GEMM(name, scalar, number, shortcut)                                                     \
  void scipy_cblas_##name(int, int, int, int, int, int, scalar, const number *, int,             \
                          const number *, int, scalar, number *, int);                           \
  void cblas_##name(int order, int ta, int tb, int m, int n, int k, scalar alpha,                \
                    const number *a, int lda, const number *b, int ldb, scalar beta, number *c,  \
                    int ldc) {                                                                   \
    shortcut                                                                                     \
    scipy_cblas_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);             \
  }
#define FEW                                                                                      \
  if (order == BY_ROWS && ta == PLAIN && m <= FEW_ROWS && beta == 0 &&                           \
      few_rows(tb, m, n, k, alpha, a, lda, b, ldb, c, ldc))                                      \
    return;
GEMM(sgemm, float, float, FEW)
GEMM(dgemm, double, double, )
GEMM(cgemm, const void *, void, )

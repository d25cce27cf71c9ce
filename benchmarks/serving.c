/* Calls a classifier's export as TF Serving's C++ does, without Python, and times it: the tfbert side of serving.py.

   serving MODEL INTRA INTER INPUT LABEL SCORE FIRST [LIBRARY ...]

   MODEL is the folder of a version; INTRA and INTER the threads of one operation and between operations; INPUT, LABEL and SCORE tensor
   names from its SignatureDef ("serving_default_text:0"). FIRST and every FILE below hold one text a line in hexadecimal digits. Each
   LIBRARY holds operations. The answer to FIRST's first text is printed at once, a JSON object a line, labels in hexadecimal digits;
   then one more for every line "BATCH ANSWERS FILE" of standard input: FILE once, in batches of BATCH. */

#include "serving.h"

static TF_Status *status;
static TF_Session *session;
static TF_Output input, outputs[2]; /* the label, the score */

/* Of this process image alone: getrusage would give at least what the parent had when it started us. */
static long long peak_memory_bytes(void) {
  char line[256];
  long long kibibytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file)) sscanf(line, "VmHWM: %lld", &kibibytes);
  if (file) fclose(file);
  return 1024 * kibibytes;
}

static void forget(Texts *texts) {
  for (int64_t i = 0; i < texts->count; i++) free(texts->texts[i]);
  free(texts->texts);
  free(texts->sizes);
}

static void print_labels(TF_Tensor *labels, int64_t begin) {
  for (int64_t i = 0; i < TF_TensorElementCount(labels); i++) {
    const TF_TString *label = (const TF_TString *)TF_TensorData(labels) + i;
    const unsigned char *bytes = (const unsigned char *)TF_TString_GetDataPointer(label);
    printf("%s\"", begin + i ? ", " : "");
    for (size_t k = 0; k < TF_TString_GetSize(label); k++) printf("%02x", bytes[k]);
    printf("\"");
  }
}

/* All texts once; what is printed is printed after the clock has stopped. */
static void measure(const Texts *texts, int64_t batch, int answers) {
  int64_t batches = (texts->count + batch - 1) / batch;
  TF_Tensor *(*results)[2] = calloc(batches, sizeof *results);
  double *each = calloc(batches, sizeof *each), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), begin = seconds(CLOCK_MONOTONIC);
  for (int64_t i = 0; i < batches; i++) {
    double before = seconds(CLOCK_MONOTONIC);
    int64_t count = i + 1 < batches ? batch : texts->count - i * batch;
    run(session, input, outputs, 2, texts->texts + i * batch, texts->sizes + i * batch, count, results[i], status);
    check(status, "run");
    each[i] = seconds(CLOCK_MONOTONIC) - before;
  }
  double all = seconds(CLOCK_MONOTONIC) - begin;
  cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf("{\"seconds\": %.9f, \"cpu_seconds\": %.9f, \"peak_memory_bytes\": %lld, \"each\": [", all, cpu, peak_memory_bytes());
  for (int64_t i = 0; i < batches; i++) printf("%s%.9f", i ? ", " : "", each[i]);
  printf("], \"labels\": [");
  for (int64_t i = 0; answers && i < batches; i++) print_labels(results[i][0], i * batch);
  printf("], \"scores\": [");
  for (int64_t i = 0; answers && i < texts->count; i++)
    printf("%s%.9g", i ? ", " : "", ((const float *)TF_TensorData(results[i / batch][1]))[i % batch]);
  printf("]}\n");
  fflush(stdout);
  for (int64_t i = 0; i < batches; i++) TF_DeleteTensor(results[i][0]), TF_DeleteTensor(results[i][1]);
  free(results);
  free(each);
}

int main(int argc, char **argv) {
  if (argc < 8) return fprintf(stderr, "usage: serving MODEL INTRA INTER INPUT LABEL SCORE FIRST [LIBRARY ...]\n"), 2;
  status = TF_NewStatus();
  load_libraries(argc - 8, argv + 8, status);
  TF_Graph *graph = TF_NewGraph();
  session = opened(argv[1], atoi(argv[2]), atoi(argv[3]), graph, status);
  input = tensor_named(graph, argv[4]), outputs[0] = tensor_named(graph, argv[5]), outputs[1] = tensor_named(graph, argv[6]);
  Texts texts = read_texts(argv[7]);
  texts.count = texts.count ? 1 : 0;
  measure(&texts, 1, 1);
  char path[4096];
  int answers;
  for (long long batch; scanf("%lld %d %4095[^\n]", &batch, &answers, path) == 3;) {
    texts = read_texts(path);
    measure(&texts, batch, answers);
    forget(&texts);
  }
  return 0;
}

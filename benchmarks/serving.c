/* Calls a classifier's export as TF Serving's C++ does, without Python, and times it: the tfbert side of serving.py.

   serving MODEL INTRA INTER INPUT LABEL SCORE FIRST [LIBRARY ...]

   MODEL is the folder of a version; INTRA and INTER the threads of one operation and between operations; INPUT, LABEL and SCORE tensor
   names from its SignatureDef ("serving_default_text:0"). FIRST and every FILE below hold one text a line in hexadecimal digits. Each
   LIBRARY holds operations. The answer to FIRST's first text is printed at once, a JSON object a line, labels in hexadecimal digits;
   then one more for every line "BATCH ANSWERS FILE" of standard input: FILE once, in batches of BATCH. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static TF_Status *status;
static TF_Session *session;
static TF_Output input, outputs[2]; /* the label, the score */

typedef struct {
  char **texts;
  size_t *sizes;
  int64_t count;
} Texts;

static void check(const char *doing) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", doing, TF_Message(status));
  exit(1);
}

static double seconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* Of this process image alone: getrusage would give at least what the parent had when it started us. */
static long long peak_memory_bytes(void) {
  char line[256];
  long long kibibytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file)) sscanf(line, "VmHWM: %lld", &kibibytes);
  if (file) fclose(file);
  return 1024 * kibibytes;
}

static TF_Output tensor_named(TF_Graph *graph, const char *name) {
  char operation[1024];
  const char *colon = strrchr(name, ':');
  if (!colon || colon - name >= (long)sizeof operation) fprintf(stderr, "%s is not NAME:INDEX\n", name), exit(2);
  memcpy(operation, name, colon - name);
  operation[colon - name] = 0;
  TF_Output output = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (!output.oper) fprintf(stderr, "no operation %s\n", operation), exit(2);
  return output;
}

static Texts read_texts(const char *path) {
  Texts found = {NULL, NULL, 0};
  FILE *file = fopen(path, "r");
  if (!file) perror(path), exit(2);
  char *line = NULL;
  size_t room = 0;
  for (ssize_t size; (size = getline(&line, &room, file)) >= 0; found.count++) {
    found.texts = realloc(found.texts, (found.count + 1) * sizeof *found.texts);
    found.sizes = realloc(found.sizes, (found.count + 1) * sizeof *found.sizes);
    size_t bytes = found.sizes[found.count] = size / 2;
    char *text = found.texts[found.count] = malloc(bytes + 1);
    for (size_t k = 0; k < bytes; k++) {
      unsigned value;
      if (sscanf(line + 2 * k, "%2x", &value) != 1) fprintf(stderr, "%s: no hexadecimal digits\n", path), exit(2);
      text[k] = value;
    }
  }
  free(line);
  fclose(file);
  return found;
}

static void forget(Texts *texts) {
  for (int64_t i = 0; i < texts->count; i++) free(texts->texts[i]);
  free(texts->texts);
  free(texts->sizes);
}

/* Strings in, results[0] labels and results[1] scores out; the caller deletes them. */
static void answer(const Texts *texts, int64_t begin, int64_t end, TF_Tensor *results[2]) {
  int64_t shape[] = {end - begin};
  TF_Tensor *batch = TF_AllocateTensor(TF_STRING, shape, 1, shape[0] * sizeof(TF_TString));
  TF_TString *strings = TF_TensorData(batch);
  for (int64_t i = 0; i < shape[0]; i++) {
    TF_TString_Init(&strings[i]);
    TF_TString_Copy(&strings[i], texts->texts[begin + i], texts->sizes[begin + i]);
  }
  TF_SessionRun(session, NULL, &input, &batch, 1, outputs, results, 2, NULL, 0, NULL, status);
  check("run");
  for (int64_t i = 0; i < shape[0]; i++) TF_TString_Dealloc(&strings[i]);
  TF_DeleteTensor(batch);
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
    answer(texts, i * batch, i + 1 < batches ? (i + 1) * batch : texts->count, results[i]);
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
  for (int i = 8; i < argc; i++) TF_LoadLibrary(argv[i], status), check(argv[i]);
  /* A serialized ConfigProto: field 2 is intra_op_parallelism_threads, field 5 inter_op_parallelism_threads. */
  unsigned char config[] = {2 << 3, atoi(argv[2]) & 127, 5 << 3, atoi(argv[3]) & 127};
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_SetConfig(options, config, sizeof config, status), check("threads");
  TF_Graph *graph = TF_NewGraph();
  const char *tags[] = {"serve"};
  session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status), check("load");
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

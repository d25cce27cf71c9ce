/* What serving.c and load.c share: an export through TensorFlow's C API, as TF Serving's C++ holds it, and files of texts. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

typedef struct {
  char **texts;
  size_t *sizes;
  int64_t count;
} Texts;

static void check(const TF_Status *status, const char *doing) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", doing, TF_Message(status));
  exit(1);
}

static double seconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
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

/* A file with one text a line in hexadecimal digits. */
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

static void load_libraries(int count, char **paths, TF_Status *status) {
  for (int i = 0; i < count; i++) TF_LoadLibrary(paths[i], status), check(status, paths[i]);
}

/* A version's folder, with the threads of one operation and between operations; the graph is the caller's to delete. */
static TF_Session *opened(const char *model, int intra, int inter, TF_Graph *graph, TF_Status *status) {
  /* A serialized ConfigProto: field 2 is intra_op_parallelism_threads, field 5 inter_op_parallelism_threads. */
  unsigned char config[] = {2 << 3, intra & 127, 5 << 3, inter & 127};
  const char *tags[] = {"serve"};
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_SetConfig(options, config, sizeof config, status), check(status, "threads");
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, model, tags, 1, graph, NULL, status);
  TF_DeleteSessionOptions(options);
  check(status, model);
  return session;
}

/* Strings in, a tensor for each output out, which the caller deletes; where the status is not OK there are none. */
static void run(TF_Session *session, TF_Output input, const TF_Output *outputs, int wanted, char **texts, const size_t *sizes,
                int64_t count, TF_Tensor **results, TF_Status *status) {
  TF_Tensor *batch = TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
  TF_TString *strings = TF_TensorData(batch);
  for (int64_t i = 0; i < count; i++) {
    TF_TString_Init(&strings[i]);
    TF_TString_Copy(&strings[i], texts[i], sizes[i]);
  }
  TF_SessionRun(session, NULL, &input, &batch, 1, outputs, results, wanted, NULL, 0, NULL, status);
  for (int64_t i = 0; i < count; i++) TF_TString_Dealloc(&strings[i]);
  TF_DeleteTensor(batch);
}

/* Serves an export as TF Serving's C++ does, without Python: TensorFlow's C API and tensorflow-text's kernels, nothing else.

   serve MODEL INPUT LABEL SCORE [LIBRARY ...] < texts

   MODEL is the folder of a version; INPUT, LABEL and SCORE are tensor names ("serving_default_text:0") from its SignatureDef; each
   LIBRARY holds operations. One text a line, one batch in all. Prints "label<tab>score" for each. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static TF_Status *status;

static void check(const char *doing) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", doing, TF_Message(status));
  exit(1);
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

static TF_Tensor *read_texts(int64_t *count) {
  char *line = NULL, **lines = NULL;
  size_t room = 0;
  ssize_t size;
  *count = 0;
  while ((size = getline(&line, &room, stdin)) >= 0) {
    if (size && line[size - 1] == '\n') line[--size] = 0;
    lines = realloc(lines, (*count + 1) * sizeof *lines);
    lines[(*count)++] = strdup(line);
  }
  TF_Tensor *texts = TF_AllocateTensor(TF_STRING, count, 1, *count * sizeof(TF_TString));
  TF_TString *strings = TF_TensorData(texts);
  for (int64_t i = 0; i < *count; i++) {
    TF_TString_Init(&strings[i]);
    TF_TString_Copy(&strings[i], lines[i], strlen(lines[i]));
  }
  return texts;
}

int main(int argc, char **argv) {
  if (argc < 5) return fprintf(stderr, "usage: serve MODEL INPUT LABEL SCORE [LIBRARY ...] < texts\n"), 2;
  status = TF_NewStatus();
  for (int i = 5; i < argc; i++) TF_LoadLibrary(argv[i], status), check(argv[i]);
  TF_Graph *graph = TF_NewGraph();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, argv[1], tags, 1, graph, NULL, status);
  check("load");
  int64_t count;
  TF_Tensor *texts = read_texts(&count), *results[2];
  TF_Output input = tensor_named(graph, argv[2]);
  TF_Output outputs[] = {tensor_named(graph, argv[3]), tensor_named(graph, argv[4])};
  TF_SessionRun(session, NULL, &input, &texts, 1, outputs, results, 2, NULL, 0, NULL, status);
  check("run");
  const TF_TString *labels = TF_TensorData(results[0]);
  const float *scores = TF_TensorData(results[1]);
  for (int64_t i = 0; i < count; i++)
    printf("%.*s\t%.9g\n", (int)TF_TString_GetSize(&labels[i]), TF_TString_GetDataPointer(&labels[i]), scores[i]);
  return 0;
}

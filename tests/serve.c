/* Serves an export as TF Serving's C++ does, without Python: TensorFlow's C API and tensorflow-text's kernels, nothing else.

   serve MODEL ROWS INPUTS OUTPUTS [LIBRARY ...] < texts

   MODEL is the folder of a version. INPUTS and OUTPUTS are tensor names from its SignatureDef, with commas between them
   ("serving_default_question:0,serving_default_context:0"); "NAME:0*4" is an input of shape [ROWS, 4]. Each LIBRARY holds operations.
   Standard input has one text a line in hexadecimal digits: all of the first input, then all of the next. For each output a line
   "shape N ..." is printed, then a value a line, strings in hexadecimal digits again. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MOST 8

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

/* The tensors of a list of names with commas; `columns` gets the number after "*", 0 without one. */
static int tensors_named(TF_Graph *graph, char *names, TF_Output *found, int64_t *columns) {
  int count = 0;
  for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
    char *star = strchr(name, '*');
    if (star) *star = 0;
    if (count == MOST) fprintf(stderr, "more than %d tensors\n", MOST), exit(2);
    if (columns) columns[count] = star ? atoi(star + 1) : 0;
    found[count++] = tensor_named(graph, name);
  }
  return count;
}

static TF_Tensor *read_texts(int64_t rows, int64_t columns) {
  int64_t shape[] = {rows, columns}, count = rows * (columns ? columns : 1);
  TF_Tensor *texts = TF_AllocateTensor(TF_STRING, shape, columns ? 2 : 1, count * sizeof(TF_TString));
  TF_TString *strings = TF_TensorData(texts);
  char *line = NULL;
  size_t room = 0;
  for (int64_t i = 0; i < count; i++) {
    ssize_t size = getline(&line, &room, stdin);
    if (size < 0) fprintf(stderr, "the texts end early\n"), exit(2);
    size_t bytes = size / 2;
    for (size_t k = 0; k < bytes; k++) {
      unsigned value;
      if (sscanf(line + 2 * k, "%2x", &value) != 1) fprintf(stderr, "no hexadecimal digits\n"), exit(2);
      line[k] = value;
    }
    TF_TString_Init(&strings[i]);
    TF_TString_Copy(&strings[i], line, bytes);
  }
  free(line);
  return texts;
}

static void print_values(const TF_Tensor *tensor) {
  int64_t count = TF_TensorElementCount(tensor);
  printf("shape");
  for (int k = 0; k < TF_NumDims(tensor); k++) printf(" %lld", (long long)TF_Dim(tensor, k));
  printf("\n");
  const void *data = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) switch (TF_TensorType(tensor)) {
      case TF_FLOAT: printf("%.9g\n", ((const float *)data)[i]); break;
      case TF_INT32: printf("%d\n", ((const int *)data)[i]); break;
      case TF_INT64: printf("%lld\n", (long long)((const int64_t *)data)[i]); break;
      case TF_BOOL: printf("%d\n", ((const unsigned char *)data)[i]); break;
      case TF_STRING: {
        const TF_TString *string = (const TF_TString *)data + i;
        const unsigned char *bytes = (const unsigned char *)TF_TString_GetDataPointer(string);
        for (size_t k = 0; k < TF_TString_GetSize(string); k++) printf("%02x", bytes[k]);
        printf("\n");
        break;
      }
      default: fprintf(stderr, "an output of type %d\n", TF_TensorType(tensor)), exit(2);
    }
}

int main(int argc, char **argv) {
  if (argc < 5) return fprintf(stderr, "usage: serve MODEL ROWS INPUTS OUTPUTS [LIBRARY ...] < texts\n"), 2;
  status = TF_NewStatus();
  for (int i = 5; i < argc; i++) TF_LoadLibrary(argv[i], status), check(argv[i]);
  TF_Graph *graph = TF_NewGraph();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, argv[1], tags, 1, graph, NULL, status);
  check("load");
  TF_Output inputs[MOST], outputs[MOST];
  TF_Tensor *texts[MOST], *results[MOST];
  int64_t columns[MOST];
  int given = tensors_named(graph, argv[3], inputs, columns), wanted = tensors_named(graph, argv[4], outputs, NULL);
  for (int i = 0; i < given; i++) texts[i] = read_texts(atoll(argv[2]), columns[i]);
  TF_SessionRun(session, NULL, inputs, texts, given, outputs, results, wanted, NULL, 0, NULL, status);
  check("run");
  for (int i = 0; i < wanted; i++) print_values(results[i]);
  return 0;
}

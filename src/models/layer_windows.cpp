#include "models/layer_windows.h"

#include "base/error.h"
#include "formats/json_fields.h"

namespace cairn::models {

std::vector<int64_t> layer_windows(const Source& source, int64_t layers, int64_t window,
                                   const std::function<bool(int64_t)>& slides) {
  std::vector<int64_t> windows(size_t(layers), 0);
  const auto types = formats::optional_strings(source.config, "layer_types", source.file);
  if (types && types->size() != size_t(layers))
    fail(ErrorKind::invalid_file, "{}: layer_types names {} layers, num_hidden_layers is {}", source.file,
         types->size(), layers);
  for (size_t layer = 0; layer < windows.size(); ++layer) {
    bool sliding = false;
    if (!types) {
      sliding = slides(int64_t(layer));
    } else if ((*types)[layer] == "sliding_attention") {
      sliding = true;
    } else if ((*types)[layer] != "full_attention") {
      fail(ErrorKind::unsupported,
           "{}: layer_types[{}] is '{}'; cairn knows full_attention and sliding_attention", source.file,
           layer, (*types)[layer]);
    }
    if (sliding && window <= 0)
      fail(ErrorKind::invalid_file, "{}: layer {} has sliding attention, but there is no sliding_window",
           source.file, layer);
    if (sliding) windows[layer] = window;
  }
  return windows;
}

}  // namespace cairn::models

# The images, built together: `make images`, or `docker buildx bake --file docker-bake.hcl`.
variable "REGISTRY" { default = "localhost/guestbook" }
variable "TAG" { default = "v1" }
# Without a value, the Dockerfile's own holds.
variable "PYTHON_IMAGE" { default = null }
variable "REVISION" { default = null }
variable "SOURCE" { default = null }

group "default" { targets = ["ui", "ui-v2", "message", "guestbook"] }

target "service" {
  dockerfile = "services/Dockerfile"
  args = {
    PYTHON_IMAGE = PYTHON_IMAGE
    VERSION      = TAG
    REVISION     = REVISION
    SOURCE       = SOURCE
  }
}

target "ui" {
  inherits = ["service"]
  target   = "ui"
  tags     = ["${REGISTRY}/ui:${TAG}"]
}

# The same code, told apart by its background and version: 07-traffic-shifting.
target "ui-v2" {
  inherits = ["service"]
  target   = "ui"
  args     = { UI_BACKGROUND = "goldenrod", DEMO_VERSION = "2.0" }
  tags     = ["${REGISTRY}/ui:${TAG == "v1" ? "v2" : "${TAG}-v2"}"]
}

target "message" {
  inherits = ["service"]
  target   = "message"
  tags     = ["${REGISTRY}/message:${TAG}"]
}

target "guestbook" {
  inherits = ["service"]
  target   = "guestbook"
  tags     = ["${REGISTRY}/guestbook:${TAG}"]
}

# Compose builds this one by itself (profile load).
target "load" {
  inherits = ["service"]
  target   = "load"
  tags     = ["${REGISTRY}/load:${TAG}"]
}

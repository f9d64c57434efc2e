# The images, built together: `make images`, or `docker buildx bake`.
variable "REGISTRY" { default = "guestbook" }
variable "TAG" { default = "v1" }
variable "REVISION" { default = "unknown" }

group "default" { targets = ["ui", "ui-v2", "message", "guestbook"] }

target "service" {
  dockerfile = "services/Dockerfile"
  args       = { VERSION = TAG, REVISION = REVISION }
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

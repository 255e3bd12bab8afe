// The kernel's exceptions as those of attnflow.errors.
#include <exception>

#include "attnflow/errors.hpp"
#include "bindings.hpp"

namespace py = pybind11;

namespace {

void raise_as(const char* name, const std::exception& error) {
    const py::object type = py::module_::import("attnflow.errors").attr(name);
    PyErr_SetString(type.ptr(), error.what());
}

}  // namespace

void bind_errors(py::module_&) {
    py::register_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const attnflow::InvalidCapacity& error) {
            raise_as("InvalidCapacityError", error);
        } catch (const attnflow::CapacityOverflow& error) {
            raise_as("InvalidCapacityError", error);
        } catch (const attnflow::InvalidArgument& error) {
            raise_as("InvalidArgumentError", error);
        } catch (const attnflow::UnboundedFlow& error) {
            raise_as("UnboundedFlowError", error);
        } catch (const attnflow::CertificateFailure& error) {
            raise_as("CertificateError", error);
        }
    });
}

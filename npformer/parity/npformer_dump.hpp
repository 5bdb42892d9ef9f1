// Writes a port's intermediate values for npformer's parity checker. C++17, this one header, nothing to link.
//
//     npformer::Dump dump("port-dump");                                   // a folder; made where it is missing
//     dump.add("stem.conv", pointer, {1, 112, 112, 32}, "NHWC");          // float or double, C order
//     dump.add_float16("stem.act", bits, {1, 112, 112, 32}, "NHWC");      // 16 raw bits a number; or add_bfloat16
//     dump.close();                                                       // or leave it to the destructor
//
// Names are UTF-8. The layout ("NHWC", "NCHW", "BND") may be left out. A name that comes again becomes "<name>#1", and
// the last has the plain name. Whatever cannot be written is a std::runtime_error; the destructor alone keeps silent.
// A Dump is not safe to use from several threads at once.

#ifndef NPFORMER_DUMP_HPP
#define NPFORMER_DUMP_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

namespace npformer {

class Dump {
public:
    // {B, C, H, W} of any integer types, mixed as they come, or a vector of them.
    struct Shape {
        std::vector<std::int64_t> sides;

        template <typename... Side, std::enable_if_t<(std::is_integral_v<Side> && ...), int> = 0>
        Shape(Side... side) : sides{static_cast<std::int64_t>(side)...} {}

        template <typename Side>
        Shape(const std::vector<Side>& all) : sides(all.begin(), all.end()) {}
    };

    // Opens a folder. A manifest of an earlier run is removed, as its numbers are about to be overwritten.
    explicit Dump(const std::string& folder) : folder_(folder) {
        std::error_code error;
        std::filesystem::create_directories(folder_, error);
        if (!error) std::filesystem::remove(folder_ / "manifest.json", error);
        if (error) throw std::runtime_error("the folder " + folder + " cannot be used for a dump: " + error.message());
    }

    Dump(const Dump&) = delete;
    Dump& operator=(const Dump&) = delete;

    ~Dump() {
        try {
            close();
        } catch (...) {  // a destructor must not throw; call close() to hear of errors
        }
    }

    void add(const std::string& name, const float* values, const Shape& shape, const std::string& layout = "") {
        static_assert(sizeof(float) == sizeof(std::uint32_t), "float must have 32 bits");
        write<std::uint32_t>(name, values, "float32", shape, layout);
    }

    void add(const std::string& name, const double* values, const Shape& shape, const std::string& layout = "") {
        static_assert(sizeof(double) == sizeof(std::uint64_t), "double must have 64 bits");
        write<std::uint64_t>(name, values, "float64", shape, layout);
    }

    // Any type of 16 bits: _Float16, __fp16, std::uint16_t, ...
    template <typename Half>
    void add_float16(const std::string& name, const Half* bits, const Shape& shape, const std::string& layout = "") {
        static_assert(sizeof(Half) == 2, "float16 has 16 bits");
        write<std::uint16_t>(name, bits, "float16", shape, layout);
    }

    template <typename Half>
    void add_bfloat16(const std::string& name, const Half* bits, const Shape& shape, const std::string& layout = "") {
        static_assert(sizeof(Half) == 2, "bfloat16 has 16 bits");
        write<std::uint16_t>(name, bits, "bfloat16", shape, layout);
    }

    // Writes manifest.json, without which the folder cannot be read. A second call does nothing.
    void close() {
        if (closed_) return;
        closed_ = true;
        std::string text = "{\"format\": \"npformer-dump\", \"version\": 1, \"values\": [";
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            const Entry& entry = entries_[i];
            text += i ? ",\n " : "\n ";
            text += "{\"name\": " + quoted(entry.name) + ", \"file\": " + quoted(entry.file);
            text += ", \"dtype\": " + quoted(entry.dtype) + ", \"shape\": [";
            for (std::size_t axis = 0; axis < entry.shape.sides.size(); ++axis) {
                text += (axis ? ", " : "") + std::to_string(entry.shape.sides[axis]);
            }
            text += "]";
            if (!entry.layout.empty()) text += ", \"layout\": " + quoted(entry.layout);
            text += "}";
        }
        text += "\n]}\n";
        // Under another name first: a manifest is there whole or not at all.
        save("manifest.json.partial", text);
        std::error_code error;
        std::filesystem::rename(folder_ / "manifest.json.partial", folder_ / "manifest.json", error);
        if (error) throw std::runtime_error("manifest.json cannot be written into the dump's folder: " + error.message());
    }

private:
    struct Entry {
        std::string name, file, dtype, layout;
        Shape shape;
    };

    template <typename Bits, typename Number>
    void write(const std::string& name, const Number* values, const char* dtype, const Shape& shape,
               const std::string& layout) {
        if (closed_) throw std::runtime_error("the dump is closed: " + name + " cannot be added");
        std::size_t count = 1;
        for (std::int64_t side : shape.sides) {
            if (side < 0) throw std::runtime_error("the shape of " + name + " has a negative side");
            count *= static_cast<std::size_t>(side);
        }
        if (count && !values) throw std::runtime_error("the values of " + name + " are a null pointer");
        std::string bytes(count * sizeof(Bits), '\0');
        for (std::size_t i = 0, at = 0; i < count; ++i) {
            Bits bits;
            std::memcpy(&bits, values + i, sizeof bits);
            for (std::size_t byte = 0; byte < sizeof bits; ++byte) {  // the lowest first, on any machine
                bytes[at++] = static_cast<char>(static_cast<unsigned char>(bits >> (8 * byte)));
            }
        }
        std::string file = std::to_string(entries_.size());
        file = std::string(file.size() < 5 ? 5 - file.size() : 0, '0') + file + ".bin";
        save(file, bytes);
        rename_earlier(name);
        entries_.push_back({name, file, dtype, layout, shape});
    }

    void rename_earlier(const std::string& name) {
        int number = 1;
        for (Entry& entry : entries_) {
            if (entry.name == name + "#" + std::to_string(number)) ++number;
            if (entry.name == name) entry.name += "#" + std::to_string(number);
        }
    }

    void save(const std::string& file, const std::string& bytes) const {
        std::ofstream stream(folder_ / file, std::ios::binary | std::ios::trunc);
        stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        stream.close();
        if (!stream) throw std::runtime_error(file + " cannot be written into the dump's folder");
    }

    static std::string quoted(const std::string& text) {
        static const char* digits = "0123456789abcdef";
        std::string json = "\"";
        for (char c : text) {
            const unsigned char code = static_cast<unsigned char>(c);
            if (c == '"' || c == '\\') {
                json += std::string("\\") + c;
            } else if (code < 0x20) {
                json += std::string("\\u00") + digits[code >> 4] + digits[code & 15];
            } else {
                json += c;
            }
        }
        return json + "\"";
    }

    std::filesystem::path folder_;
    std::vector<Entry> entries_;
    bool closed_ = false;
};

}  // namespace npformer

#endif  // NPFORMER_DUMP_HPP

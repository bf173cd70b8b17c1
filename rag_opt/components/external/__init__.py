"""What people bring whole: a Haystack pipeline of their own, a function, a service."""
